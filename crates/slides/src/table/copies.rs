//! Which names of slides lead to one file, and which files have one content.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use file_id::FileId;
use sha2::{Digest, Sha256};

/// Files up to this size are read whole; of larger ones blocks are read.
const WHOLE: u64 = 1 << 20;
/// Bytes of a block.
const BLOCK: u64 = 1 << 14;
/// Blocks of a file: an odd number, so that one lies in the middle.
const BLOCKS: u64 = 65;
/// Blocks by which a file is recognised: the first, the middle and the last.
const QUICK_BLOCKS: u64 = 3;

/// Two slides of a list that are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlideCopy {
    /// Place of the first of them in the list.
    pub first: usize,
    /// Place of the other.
    pub second: usize,
    /// What they have in common.
    pub kind: CopyKind,
}

/// What two slides of a list have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    /// Both names lead to one file: they are spelled differently (`./a.svs`, `x/../a.svs`, another case where the file system
    /// ignores it), or one is a symbolic or a hard link.
    OneFile,
    /// The files have one size and, as far as they were read, one content.
    SameContent,
}

/// Finds slides that stand in a list more than once, under whatever names. Each is told once, with the first that it copies.
///
/// Content is compared only where sizes are the same, by a hash: of files up to 1 MiB whole, of larger ones by 65 blocks of
/// 16 KiB, spread evenly from the first byte to the last. What lies beside the file counts where a format keeps pixels there: the
/// folder of an `.mrxs`, and the files of a `.vms` or `.vmu` that begin with its name. Empty files, and those that cannot be
/// read, are no copies of each other.
///
/// # Examples
/// ```
/// use stream_grad_slides::{CopyKind, find_copies};
/// # fn main() -> std::io::Result<()> {
/// let folder = tempfile::tempdir()?;
/// for (name, content) in [("a.svs", "one"), ("b.svs", "two"), ("c.svs", "one")] {
///     std::fs::write(folder.path().join(name), content)?;
/// }
/// let slides = ["a.svs", "b.svs", "./a.svs", "c.svs"].map(|name| folder.path().join(name));
/// let copies = find_copies(&slides);
/// assert_eq!((copies[0].first, copies[0].second, copies[0].kind), (0, 2, CopyKind::OneFile));
/// assert_eq!((copies[1].first, copies[1].second, copies[1].kind), (0, 3, CopyKind::SameContent));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn find_copies(slides: &[impl AsRef<Path>]) -> Vec<SlideCopy> {
    let mut copies = Vec::new();
    let mut names: HashMap<PathBuf, usize> = HashMap::new();
    let mut by_size: HashMap<u64, Vec<Candidate>> = HashMap::new();
    for (place, slide) in slides.iter().enumerate() {
        let path = slide.as_ref();
        let name = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        if let Some(&first) = names.get(&name) {
            copies.push(SlideCopy {
                first,
                second: place,
                kind: CopyKind::OneFile,
            });
            continue;
        }
        if let Some(size) = size_of(&name) {
            let known = by_size.entry(size).or_default();
            match Candidate::new(place, &name, size).copy_of(known) {
                Ok(copy) => copies.push(copy),
                Err(new) => known.push(new),
            }
        }
        names.insert(name, place);
    }
    copies
}

/// Bytes of a file that has any.
fn size_of(path: &Path) -> Option<u64> {
    let metadata = path.metadata().ok()?;
    Some(metadata.len()).filter(|size| metadata.is_file() && *size > 0)
}

/// A slide, and what is found out about it when another one has its size.
struct Candidate {
    place: usize,
    path: PathBuf,
    size: u64,
    id: Option<FileId>,
    /// Worked out once; none if it cannot be read.
    hash: Option<Option<[u8; 32]>>,
}

impl Candidate {
    fn new(place: usize, path: &Path, size: u64) -> Self {
        Self {
            place,
            path: path.to_path_buf(),
            size,
            id: None,
            hash: None,
        }
    }

    /// The copy that this is of one of `known`, which are as large; itself if it is none.
    fn copy_of(mut self, known: &mut [Self]) -> Result<SlideCopy, Self> {
        for other in known {
            let hash = self.hash();
            if hash.is_none() || hash != other.hash() {
                continue;
            }
            // Not by the file's number alone: some network file systems give one number to two files.
            let kind = match (self.id(), other.id()) {
                (Some(id), Some(other)) if id == other => CopyKind::OneFile,
                _ => CopyKind::SameContent,
            };
            return Ok(SlideCopy {
                first: other.place,
                second: self.place,
                kind,
            });
        }
        Err(self)
    }

    fn hash(&mut self) -> Option<[u8; 32]> {
        *self
            .hash
            .get_or_insert_with(|| content_hash(&self.path, (self.size, BLOCKS)).ok())
    }

    fn id(&mut self) -> Option<FileId> {
        if self.id.is_none() {
            self.id = file_id::get_file_id(&self.path).ok();
        }
        self.id
    }
}

/// By what a slide is recognised wherever it lies: its size, and a hash of its content as far as it is read. That is the whole of
/// files up to 1 MiB, and the first, the middle and the last 16 KiB of larger ones; what lies beside the file counts as for
/// [`find_copies`].
///
/// # Errors
/// What the system says of a file that cannot be read.
///
/// # Examples
/// ```
/// use stream_grad_slides::quick_identity;
/// # fn main() -> std::io::Result<()> {
/// let folder = tempfile::tempdir()?;
/// let [slide, moved] = ["a.svs", "b.svs"].map(|name| folder.path().join(name));
/// std::fs::write(&slide, "pixels")?;
/// let identity = quick_identity(&slide)?;
/// std::fs::rename(&slide, &moved)?;
/// assert_eq!(quick_identity(&moved)?, identity);
/// std::fs::write(&moved, "others")?;
/// assert_ne!(quick_identity(&moved)?, identity);
/// # Ok(())
/// # }
/// ```
pub fn quick_identity(path: &Path) -> std::io::Result<String> {
    let size = path.metadata()?.len();
    let hash = content_hash(path, (size, QUICK_BLOCKS))?;
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{size}-{hash}"))
}

fn content_hash(path: &Path, (size, blocks): (u64, u64)) -> std::io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    hash_file(path, (size, blocks), &mut hasher)?;
    for companion in companions(path)? {
        let size = companion.metadata()?.len();
        hasher.update(companion.extension().unwrap_or_default().as_encoded_bytes());
        hasher.update(size.to_le_bytes());
        hash_file(&companion, (size, blocks), &mut hasher)?;
    }
    Ok(hasher.finalize().into())
}

/// Adds a file, or that many blocks of it, from its first to its last byte.
fn hash_file(path: &Path, (size, blocks): (u64, u64), hasher: &mut Sha256) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    if size <= WHOLE {
        file.take(WHOLE).read_to_end(&mut bytes)?;
        hasher.update(&bytes);
        return Ok(());
    }
    for block in 0..blocks {
        let start = u128::from(size - BLOCK) * u128::from(block) / u128::from(blocks - 1);
        file.seek(SeekFrom::Start(u64::try_from(start).unwrap_or(size)))?;
        bytes.clear();
        file.by_ref().take(BLOCK).read_to_end(&mut bytes)?;
        hasher.update(&bytes);
    }
    Ok(())
}

/// Files beside a slide that hold its pixels, by name.
fn companions(slide: &Path) -> std::io::Result<Vec<PathBuf>> {
    let extension = slide.extension().unwrap_or_default().to_ascii_lowercase();
    let stem = slide.file_stem().unwrap_or_default().as_encoded_bytes();
    let (folder, prefix) = match extension.to_str() {
        Some("mrxs") => (slide.with_extension(""), &b""[..]),
        Some("vms" | "vmu") => (crate::files::folder_of(slide).to_path_buf(), stem),
        _ => return Ok(Vec::new()),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(prefix) && path != slide && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
