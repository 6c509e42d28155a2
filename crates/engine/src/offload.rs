//! What is saved for the backward sweep, in a file: a stack, for it is read in exactly the reverse of the order in which it
//! was written. The only module of this crate that opens files.
//!
//! A thread of its own writes and reads whole blocks, while the sweeps compute; the number of blocks in memory is fixed. The
//! file has no name from the moment it exists, so that nothing is left of it however the process ends, and no other process
//! can meet it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use stream_grad_tiling::ByteCount;

use crate::element::Stored;
use crate::error::{Result, StreamError};

/// The most bytes of a block: enough for a disk.
const LARGEST_BLOCK: usize = 1 << 20;
/// The fewest bytes of a block, and what others are a multiple of: a whole number of values.
const SMALLEST_BLOCK: usize = 512;
/// Blocks in memory: the top of the stack, and those on their way.
const BLOCKS: usize = 4;

/// The most heap bytes of a [`Offload`]'s blocks.
pub(crate) const OFFLOAD_BYTES: u128 = (BLOCKS * LARGEST_BLOCK) as u128;
/// What the blocks of a small stack are a part of it: all of them, a quarter.
const PART: u64 = 4 * BLOCKS as u64;

/// What a file in `folder` may hold: half of what is free there now.
///
/// # Errors
/// [`StreamError::Offload`] for a folder that does not exist, or is none.
pub(crate) fn room(folder: &Path) -> Result<ByteCount> {
    let failed = |source| StreamError::Offload {
        folder: folder.to_owned(),
        what: "looking at",
        source,
    };
    if !std::fs::metadata(folder).map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let free = fs4::available_space(folder).map_err(failed)?;
    Ok(ByteCount::bytes(free / 2))
}

/// Seconds in which a byte is written to a file in `folder` and read again, where nothing else is done meanwhile. The system
/// may not have it on the disk yet: neither has it while a step that offloads runs.
///
/// # Errors
/// As for [`room`] and [`Offload`].
pub(crate) fn time_bytes(folder: &Path) -> Result<f64> {
    const VALUES: usize = 1 << 18;
    const ROUNDS: u64 = 48;
    let rounds = ROUNDS.min(room(folder)?.get() / (4 * VALUES as u64)).max(1);
    let mut values = vec![0.5_f32; VALUES];
    let bytes = rounds * 4 * VALUES as u64;
    let start = Instant::now();
    let mut offload = Offload::create(folder, bytes)?;
    for _ in 0..rounds {
        offload.push(&values)?;
    }
    for _ in 0..rounds {
        offload.pop(&mut values)?;
    }
    Ok(start.elapsed().as_secs_f64() / bytes as f64)
}

/// A stack of values in a file.
pub(crate) struct Offload {
    folder: PathBuf,
    /// Bytes of a block.
    block: usize,
    /// The top of the stack; `filled` bytes of it are.
    top: Vec<u8>,
    filled: usize,
    /// Number of blocks below the top.
    depth: u64,
    /// Blocks that hold nothing.
    free: Vec<Vec<u8>>,
    /// Copies of blocks of the file, with their indices.
    read: Vec<(u64, Vec<u8>)>,
    /// Indices of blocks that are being read.
    reading: Vec<u64>,
    worker: Worker,
}

/// The thread that has the file.
struct Worker {
    commands: Option<SyncSender<Command>>,
    replies: Receiver<Reply>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Write,
    Read,
}

/// Moves a block between memory and the file.
struct Command {
    action: Action,
    index: u64,
    block: Vec<u8>,
}

struct Reply {
    action: Action,
    index: u64,
    block: Vec<u8>,
    result: io::Result<()>,
}

impl Offload {
    /// An empty stack in a file without a name in `folder`, for `bytes` bytes or more.
    ///
    /// # Errors
    /// [`StreamError::Offload`] if the folder takes no file.
    pub(crate) fn create(folder: &Path, bytes: u64) -> Result<Self> {
        let file: File = tempfile::tempfile_in(folder).map_err(|source| StreamError::Offload {
            folder: folder.to_owned(),
            what: "making a file in",
            source,
        })?;
        Self::over(file, folder, bytes)
    }

    fn over(
        file: impl Read + Write + Seek + Send + 'static,
        folder: &Path,
        bytes: u64,
    ) -> Result<Self> {
        let block = usize::try_from(bytes / PART)
            .unwrap_or(usize::MAX)
            .clamp(SMALLEST_BLOCK, LARGEST_BLOCK)
            .next_multiple_of(SMALLEST_BLOCK);
        let (commands, inbox) = sync_channel::<Command>(BLOCKS);
        let (outbox, replies) = sync_channel::<Reply>(BLOCKS);
        let thread = Builder::new()
            .name("offload".into())
            .spawn(move || serve(file, &inbox, &outbox))
            .map_err(|source| StreamError::Offload {
                folder: folder.to_owned(),
                what: "starting a thread for a file in",
                source,
            })?;
        Ok(Self {
            folder: folder.to_owned(),
            block,
            top: vec![0; block],
            filled: 0,
            depth: 0,
            free: (1..BLOCKS).map(|_| vec![0; block]).collect(),
            read: Vec::with_capacity(BLOCKS),
            reading: Vec::with_capacity(BLOCKS),
            worker: Worker {
                commands: Some(commands),
                replies,
                thread: Some(thread),
            },
        })
    }

    /// Puts values on the stack.
    ///
    /// # Errors
    /// [`StreamError::Offload`] for a block that could not be written; it may be an earlier one.
    pub(crate) fn push<T: Stored>(&mut self, values: &[T]) -> Result<()> {
        let mut rest = values;
        while !rest.is_empty() {
            if self.filled == self.block {
                let empty = self.empty_block()?;
                let full = std::mem::replace(&mut self.top, empty);
                self.send(Action::Write, self.depth, full)?;
                self.depth += 1;
                self.filled = 0;
            }
            let count = rest.len().min((self.block - self.filled) / size_of::<T>());
            let (now, later) = rest.split_at(count);
            let end = self.filled + count * size_of::<T>();
            T::to_bytes(now, &mut self.top[self.filled..end]);
            self.filled = end;
            rest = later;
        }
        Ok(())
    }

    /// Takes as many values as there are places off the stack; they come in the order in which they were put there.
    ///
    /// # Errors
    /// [`StreamError::Offload`] for a block that could not be written or read.
    pub(crate) fn pop<T: Stored>(&mut self, values: &mut [T]) -> Result<()> {
        let mut rest = values;
        while !rest.is_empty() {
            if self.filled == 0 {
                self.fetch_top()?;
            }
            let count = rest.len().min(self.filled / size_of::<T>());
            let (later, now) = rest.split_at_mut(rest.len() - count);
            let start = self.filled - count * size_of::<T>();
            T::from_bytes(&self.top[start..self.filled], now);
            self.filled = start;
            rest = later;
        }
        Ok(())
    }

    /// Replaces the top, which is empty, by the block below it, and has those below that read ahead.
    fn fetch_top(&mut self) -> Result<()> {
        let Some(wanted) = self.depth.checked_sub(1) else {
            return Err(self.failed("taking from", io::ErrorKind::UnexpectedEof.into()));
        };
        self.free.push(std::mem::take(&mut self.top));
        self.top = loop {
            if let Some(place) = self.read.iter().position(|(index, _)| *index == wanted) {
                break self.read.swap_remove(place).1;
            }
            if !self.reading.contains(&wanted) {
                let block = self.empty_block()?;
                self.request(wanted, block)?;
            }
            self.receive()?;
        };
        self.depth = wanted;
        self.filled = self.block;
        let ahead = (0..wanted).rev().take(BLOCKS - 1);
        for index in ahead {
            let known = self.reading.contains(&index) || self.read.iter().any(|(i, _)| *i == index);
            if known {
                continue;
            }
            let Some(block) = self.free.pop() else {
                break;
            };
            self.request(index, block)?;
        }
        Ok(())
    }

    fn request(&mut self, index: u64, block: Vec<u8>) -> Result<()> {
        self.reading.push(index);
        self.send(Action::Read, index, block)
    }

    /// A block that holds nothing, or a copy of what the file has.
    fn empty_block(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(block) = self.free.pop() {
                return Ok(block);
            }
            if let Some((_, block)) = self.read.pop() {
                return Ok(block);
            }
            self.receive()?;
        }
    }

    fn send(&mut self, action: Action, index: u64, block: Vec<u8>) -> Result<()> {
        let command = Command {
            action,
            index,
            block,
        };
        let commands = self.worker.commands.as_ref();
        let sent = commands.is_some_and(|commands| commands.send(command).is_ok());
        if sent {
            return Ok(());
        }
        Err(self.failed("using", io::ErrorKind::BrokenPipe.into()))
    }

    /// Waits for the thread to be done with a block.
    fn receive(&mut self) -> Result<()> {
        let Ok(reply) = self.worker.replies.recv() else {
            return Err(self.failed("using", io::ErrorKind::BrokenPipe.into()));
        };
        match reply.action {
            Action::Write => {
                self.free.push(reply.block);
                reply
                    .result
                    .map_err(|source| self.failed("writing to", source))
            }
            Action::Read => {
                self.reading.retain(|&index| index != reply.index);
                self.read.push((reply.index, reply.block));
                reply
                    .result
                    .map_err(|source| self.failed("reading from", source))
            }
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> StreamError {
        StreamError::Offload {
            folder: self.folder.clone(),
            what,
            source,
        }
    }
}

/// Carries out commands, one after another, until there are no more.
fn serve(
    mut file: impl Read + Write + Seek,
    inbox: &Receiver<Command>,
    outbox: &SyncSender<Reply>,
) {
    while let Ok(mut command) = inbox.recv() {
        let offset = SeekFrom::Start(command.index * command.block.len() as u64);
        let result = file.seek(offset).and_then(|_| match command.action {
            Action::Write => file.write_all(&command.block),
            Action::Read => file.read_exact(&mut command.block),
        });
        let reply = Reply {
            action: command.action,
            index: command.index,
            block: command.block,
            result,
        };
        if outbox.send(reply).is_err() {
            break;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        // Blocks that are on their way are not waited for one by one: the channel has room for all.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn values(from: u32, count: usize) -> Vec<f32> {
        (from..).take(count).map(|value| value as f32).collect()
    }

    /// Records of all lengths, pushed and popped in waves, as segments do.
    #[test]
    fn what_was_pushed_comes_back_in_reverse() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [0, 100_000, 1 << 30] {
            waves(&folder, bytes);
        }
    }

    fn waves(folder: &tempfile::TempDir, bytes: u64) {
        let mut offload = Offload::create(folder.path(), bytes).unwrap();
        let lengths = [0, 1, 1000, 65_536, 65_529, 600_000, 17, 700_001];
        for wave in 0..3 {
            let mut records: Vec<Vec<f32>> = Vec::new();
            for (index, &length) in lengths.iter().cycle().take(20).enumerate() {
                let record = values(wave * 1000 + u32::try_from(index).unwrap(), length);
                offload.push(&record).unwrap();
                records.push(record);
            }
            // A part comes back, more is put on top, and then all comes back.
            for _ in 0..7 {
                let expected = records.pop().unwrap();
                let mut found = vec![f32::NAN; expected.len()];
                offload.pop(&mut found).unwrap();
                assert!(found == expected, "wave {wave}");
            }
            records.push(values(5, 500_003));
            offload.push(&records[records.len() - 1]).unwrap();
            while let Some(expected) = records.pop() {
                let mut found = vec![f32::NAN; expected.len()];
                offload.pop(&mut found).unwrap();
                assert!(found == expected, "wave {wave}");
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let error = offload.pop(&mut [0.0_f64]).unwrap_err();
        assert!(
            matches!(&error, StreamError::Offload { folder: named, what: "taking from", source }
                if named == folder.path() && source.kind() == io::ErrorKind::UnexpectedEof),
            "{error}"
        );
    }

    /// A file on a disk that is full after `room` bytes.
    struct Full(Cursor<Vec<u8>>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let end = usize::try_from(self.0.position()).unwrap() + bytes.len();
            if end > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Full {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.0.read(bytes)
        }
    }

    impl Seek for Full {
        fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
            self.0.seek(position)
        }
    }

    #[test]
    fn a_disk_that_fills_up_is_an_error_that_names_the_folder() {
        let file = Full(Cursor::new(Vec::new()), 5 * (1 << 18));
        let mut offload = Offload::over(file, Path::new("there"), 1 << 22).unwrap();
        let record = values(0, 100_000);
        let pushed = (0..40).try_for_each(|_| offload.push(&record));
        let error = pushed.unwrap_err();
        assert!(
            matches!(&error, StreamError::Offload { folder, what: "writing to", source }
                if folder == Path::new("there") && source.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
    }

    #[test]
    fn folders_that_take_no_file_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        for path in [&missing, &file] {
            for refusal in [room(path).map(drop), Offload::create(path, 0).map(drop)] {
                let message = refusal.unwrap_err().to_string();
                assert!(message.contains(path.to_str().unwrap()), "{message}");
            }
        }
    }
}
