//! Files and folders that appear whole or not at all: the one way in which the crates of `stream-grad` write.
//!
//! - Something new is written beside its destination, under the name `.NAME.XXXXXXXX.stream-grad-partial`, flushed to the
//!   disk, and renamed. A failure, a full disk or a crash leaves what stood there before.
//! - **Permissions** are those of any new file, by the umask. A file that is replaced passes its permissions on.
//! - **Links** are followed: what a link points to is replaced, and the link stays. A device or a pipe is never replaced.
//! - **What a killed process left** is removed by the next one that writes into the same folder. Whoever writes holds a lock
//!   on the partial file, which ends with the process however that ends; only what nobody holds is removed. Where a file system
//!   has no locks nothing is removed, and machines that share one must share its locks (NFS 4 does so).
//! - [`refuse_input`] keeps a program from writing over what it reads.
//!
//! ```
//! use std::io::Write;
//! use stream_grad_files::{NewFile, write_whole};
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("epochs.csv");
//! write_whole(&path, b"epoch,loss\n")?;
//!
//! let mut file = NewFile::create(&path)?;
//! file.write_all(b"epoch,loss\n0,0.7\n")?;
//! assert_eq!(std::fs::read(&path)?, b"epoch,loss\n");
//! file.commit()?;
//! assert_eq!(std::fs::read(&path)?, b"epoch,loss\n0,0.7\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod abandoned;
mod destination;
mod error;
mod file;
mod folder;
mod partial;
mod same;

pub use destination::folder_of;
pub use error::{FileError, Result};
pub use file::{NewFile, write_whole};
pub use folder::NewFolder;
pub use same::{is_same_place, refuse_input};
