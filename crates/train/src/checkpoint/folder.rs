//! The checkpoints of a run: the last few, and the weights of the best epoch.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::{Checkpoint, damaged, read_sealed, write_sealed};
use crate::error::{Result, TrainError};

const ENDING: &str = "safetensors";
const BEST: &str = "best.safetensors";
const EPOCH: &str = "epoch";

/// A folder of checkpoints.
///
/// They are called by how far the run is, `epoch-0002-step-000010.safetensors` being the state after ten steps of the third epoch, so
/// that their names lie in their order. Beside them, `best.safetensors` has the weights of the best epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFolder {
    folder: PathBuf,
    keep: usize,
}

/// A checkpoint that cannot be used, and why.
#[derive(Debug)]
pub struct UnusableCheckpoint {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: TrainError,
}

impl CheckpointFolder {
    /// The folder, made with its first checkpoint, of which the newest `keep` stay; at least one.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, keep: usize) -> Self {
        Self {
            folder: folder.into(),
            keep: keep.max(1),
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes a checkpoint, then removes those that are older than the newest few. Returns where it is.
    ///
    /// # Errors
    /// [`TrainError::CheckpointNotWritten`]: then those that were there are as they were. [`TrainError::File`] for an old one that
    /// cannot be removed.
    pub fn write(&self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let progress = &checkpoint.progress;
        let path = self.folder.join(format!(
            "epoch-{:04}-step-{:06}.{ENDING}",
            progress.epoch, progress.groups
        ));
        checkpoint.save(&path)?;
        // Those after it are of a run that went on from an earlier checkpoint, since one of them is damaged.
        let older = self.files()?.into_iter().filter(|other| *other < path);
        let older: Vec<PathBuf> = older.collect();
        let removed = older.len().saturating_sub(self.keep - 1);
        for old in &older[..removed] {
            std::fs::remove_file(old).map_err(TrainError::file(old))?;
        }
        Ok(path)
    }

    /// The newest checkpoint that can be used, if there is any file; each that cannot is told to `unusable` first.
    ///
    /// # Errors
    /// [`TrainError::NoCheckpoint`] if there are files and none can be used; [`TrainError::NewerCheckpoint`];
    /// [`TrainError::File`] for a folder that cannot be read.
    pub fn newest(
        &self,
        unusable: &mut dyn FnMut(UnusableCheckpoint),
    ) -> Result<Option<(PathBuf, Checkpoint)>> {
        let files = self.files()?;
        let mut last = None;
        for path in files.iter().rev() {
            match Checkpoint::load(path) {
                Ok(checkpoint) => return Ok(Some((path.clone(), checkpoint))),
                Err(error @ TrainError::NewerCheckpoint { .. }) => return Err(error),
                Err(reason) => {
                    last.get_or_insert_with(|| (path.clone(), reason.to_string()));
                    unusable(UnusableCheckpoint {
                        path: path.clone(),
                        reason,
                    });
                }
            }
        }
        match last {
            None => Ok(None),
            Some((newest, last)) => Err(TrainError::NoCheckpoint {
                folder: self.folder.clone(),
                count: files.len(),
                newest,
                last,
            }),
        }
    }

    /// Writes the weights and running statistics of the best epoch so far, from 0.
    ///
    /// # Errors
    /// [`TrainError::CheckpointNotWritten`]: then those that were there are as they were.
    pub fn write_best(&self, epoch: u64, model: &BTreeMap<String, Tensor>) -> Result<()> {
        let text = HashMap::from([(EPOCH.to_owned(), epoch.to_string())]);
        write_sealed(&self.folder.join(BEST), text, model)
    }

    /// The weights of the best epoch, which was `epoch`.
    ///
    /// # Errors
    /// [`TrainError::File`]; [`TrainError::Checkpoint`] if they are damaged or of another epoch.
    pub fn best(&self, epoch: u64) -> Result<BTreeMap<String, Tensor>> {
        let path = self.folder.join(BEST);
        let sealed = read_sealed(&path)?;
        if !sealed.is_checked {
            return Err(damaged(&path, "a checksum", &"none"));
        }
        match sealed.text.get(EPOCH) {
            Some(found) if *found == epoch.to_string() => Ok(sealed.tensors),
            found => Err(damaged(
                &path,
                &format!("weights of epoch {epoch}, from 0"),
                &found.map_or("no epoch", String::as_str),
            )),
        }
    }

    /// All checkpoints, oldest first.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(TrainError::file(&self.folder))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(TrainError::file(&self.folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let is_checkpoint = name.is_some_and(|name| !name.starts_with('.') && name != BEST)
                && path.extension().is_some_and(|ending| ending == ENDING);
            if is_checkpoint {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::checkpoint::Progress;

    fn checkpoint(epoch: u64, groups: u64) -> Checkpoint {
        let progress = Progress {
            epoch,
            groups,
            ..Progress::default()
        };
        let weight = Tensor::new(&[1.5_f32, 2.5], &Device::Cpu).unwrap();
        Checkpoint {
            progress,
            model: BTreeMap::from([("weight".to_owned(), weight)]),
            optimizer: HashMap::new(),
            average: BTreeMap::new(),
        }
    }

    fn names(folder: &CheckpointFolder) -> Vec<String> {
        let files = folder.files().unwrap().into_iter();
        files
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    fn place(folder: &CheckpointFolder) -> ((u64, u64), Vec<String>) {
        let mut named = Vec::new();
        let (_, found) = folder
            .newest(&mut |unusable| named.push(unusable.reason.to_string()))
            .unwrap()
            .unwrap();
        ((found.progress.epoch, found.progress.groups), named)
    }

    #[test]
    fn the_last_few_stay() {
        let place_ = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::new(place_.path().join("checkpoints"), 3);
        assert!(folder.newest(&mut |_| panic!()).unwrap().is_none());
        for (epoch, groups) in [(0, 1), (0, 2), (0, 10), (1, 0), (1, 1)] {
            folder.write(&checkpoint(epoch, groups)).unwrap();
        }
        let expected = [
            "epoch-0000-step-000010",
            "epoch-0001-step-000000",
            "epoch-0001-step-000001",
        ];
        assert_eq!(names(&folder), expected);
        assert_eq!(place(&folder), ((1, 1), Vec::new()));
    }

    #[test]
    fn a_damaged_one_is_named_and_the_one_before_is_used() {
        let place_ = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::new(place_.path(), 3);
        let paths = [1, 2, 3].map(|groups| folder.write(&checkpoint(0, groups)).unwrap());
        let damage = |path: &Path| {
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            std::fs::write(path, bytes).unwrap();
        };
        damage(&paths[2]);
        std::fs::write(&paths[1], "").unwrap();
        let (found, named) = place(&folder);
        assert_eq!(found, (0, 1));
        assert!(named[0].contains("step-000003") && named[1].contains("step-000002"));
        // The run goes on from there, and writes them anew.
        folder.write(&checkpoint(0, 2)).unwrap();
        assert_eq!(place(&folder).0, (0, 2));
        assert_eq!(names(&folder).len(), 3);

        damage(&paths[0]);
        damage(&paths[1]);
        let error = folder.newest(&mut |_| ()).unwrap_err().to_string();
        for part in ["none of the 3", "step-000003", "Delete"] {
            assert!(error.contains(part), "{part:?} in {error}");
        }
    }

    #[test]
    fn the_best_is_of_its_epoch_and_no_checkpoint() {
        let place_ = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::new(place_.path(), 1);
        let model = checkpoint(0, 0).model;
        folder.write_best(4, &model).unwrap();
        let found = folder.best(4).unwrap();
        assert_eq!(found["weight"].to_vec1::<f32>().unwrap(), [1.5, 2.5]);
        assert!(folder.best(5).unwrap_err().to_string().contains("epoch 5"));
        assert!(names(&folder).is_empty());
    }
}
