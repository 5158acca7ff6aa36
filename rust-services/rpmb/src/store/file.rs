// SPDX-License-Identifier: Apache-2.0

//! A store in a file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FallocateFlags, FlockOperation, RenameFlags, fallocate, flock, renameat_with,
};
use rustix::io::Errno;

use super::{Medium, Shape, Store, StoreError, medium, size_of_store};

/// Opens the store in a file, which is made where there is none. Nobody else may use it meanwhile.
///
/// # Errors
/// As [`Store::open`], and where another process has it.
pub fn open_file(path: &Path, shape: &Shape) -> Result<Store, StoreError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => {
            lock(&file)?;
            // It has its name since it is whole.
            Store::open_made(Box::new(file), shape, None)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, shape),
        Err(source) => Err(StoreError::Medium {
            what: "open the store",
            source,
        }),
    }
}

/// Makes the store under another name first: under its own it is whole from its first moment on.
fn make(path: &Path, shape: &Shape) -> Result<Store, StoreError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(medium("make the store's folder"))?;
    let unfinished = beside(path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // The key is in it.
        .mode(0o600)
        .open(&unfinished)
        .map_err(medium("make the store"))?;
    lock(&file)?;
    let size = size_of_store(shape, file.alignment());
    // What an interrupted attempt has left.
    file.set_len(0).map_err(medium("empty the store"))?;
    file.set_len(size)
        .map_err(medium("make room for the store"))?;
    // Now, so that no write fails later for want of room.
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => {
            return Err(StoreError::Medium {
                what: "make room for the store",
                source: error.into(),
            });
        }
    }
    let whole = file.try_clone().map_err(medium("make the store"))?;
    let store = Store::open(Box::new(file), shape, None)?;
    whole.sync_all().map_err(medium("wait for the store"))?;
    // A store that somebody else has made meanwhile stays.
    renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE)
        .map_err(|error| medium("give the store its name")(error.into()))?;
    let folder = File::open(folder).map_err(medium("open the store's folder"))?;
    folder
        .sync_all()
        .map_err(medium("wait for the store's name"))?;
    Ok(store)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// The lock goes with the descriptor, and so with the process.
fn lock(file: &File) -> Result<(), StoreError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(StoreError::InUse),
        Err(error) => Err(StoreError::Medium {
            what: "lock the store",
            source: error.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use std::os::unix::fs::MetadataExt;

    const SHAPE: Shape = Shape {
        capacity_units: 1,
        most_written: 4,
    };

    #[test]
    fn a_store_is_made_once_and_found_again_with_all_that_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/guest.rpmb");
        let mut store = open_file(&path, &SHAPE).unwrap();
        store.program(Key::new([9; 32])).unwrap();
        store.write(510, &[7; 512], [1; 32]).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert_eq!(metadata.len(), size_of_store(&SHAPE, 4096));
        drop(store);
        let mut store = open_file(&path, &SHAPE).unwrap();
        assert_eq!(store.state().counter, 1);
        assert!(store.state().key.as_ref().unwrap().is(&[9; 32]));
        let mut data = [0; 768];
        store.read(509, &mut data).unwrap();
        assert_eq!((data[255], data[256], data[767]), (0, 7, 7));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), metadata.len());
    }

    #[test]
    fn two_processes_do_not_share_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let first = open_file(&path, &SHAPE).unwrap();
        assert!(matches!(open_file(&path, &SHAPE), Err(StoreError::InUse)));
        drop(first);
        open_file(&path, &SHAPE).unwrap();
    }

    #[test]
    fn what_is_no_store_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letter");
        std::fs::write(&path, [b'x'; 5000]).unwrap();
        assert!(matches!(open_file(&path, &SHAPE), Err(StoreError::Foreign)));
        assert_eq!(std::fs::read(&path).unwrap(), [b'x'; 5000]);
        std::fs::write(&path, b"short").unwrap();
        assert!(open_file(&path, &SHAPE).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn a_store_keeps_its_shape() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        drop(open_file(&path, &SHAPE).unwrap());
        for (capacity_units, most_written) in [(2, 4), (1, 8)] {
            let other = Shape {
                capacity_units,
                most_written,
            };
            let refused = open_file(&path, &other);
            assert!(matches!(
                refused,
                Err(StoreError::Shape {
                    units: 1,
                    written: 4
                })
            ));
        }
    }

    #[test]
    fn a_damaged_store_is_refused_and_never_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let mut store = open_file(&path, &SHAPE).unwrap();
        store.program(Key::new([9; 32])).unwrap();
        drop(store);
        let mut bytes = std::fs::read(&path).unwrap();
        // One record is damaged: the other one holds, as after a power cut.
        bytes[8192 + 40] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        drop(open_file(&path, &SHAPE).unwrap());
        bytes[4096 + 40] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(open_file(&path, &SHAPE), Err(StoreError::Damaged)));
        // A file system that was damaged has zeros.
        bytes[..4096].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(open_file(&path, &SHAPE), Err(StoreError::Erased)));
        bytes.fill(0);
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(open_file(&path, &SHAPE), Err(StoreError::Erased)));
    }
}
