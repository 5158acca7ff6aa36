// SPDX-License-Identifier: Apache-2.0

//! How much of the host's disk guests may fill.
//!
//! What a guest plays takes room for as long as it plays, and each stream that it prepares takes a
//! file. What a file system has last is the host's: without it logs, updates and other services fail.

use std::io::{Error, ErrorKind};
use std::path::Path;

use rustix::fs::statvfs;

use super::super::BackendError;
use super::file_error;

/// Bytes that stay free on a large file system; on a smaller one a tenth of it.
const LEAST_BYTES: u64 = 512 << 20;
/// Files that can still be made on a large file system; on a smaller one a tenth of its files.
const LEAST_FILES: u64 = 10_000;

/// What guests leave free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    bytes: u64,
    files: u64,
    /// No more than one part of so many.
    of: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            bytes: LEAST_BYTES,
            files: LEAST_FILES,
            of: 10,
        }
    }
}

impl Room {
    /// Whether a guest may go on filling the file system of `path`, or of the nearest folder above it
    /// that is there.
    ///
    /// # Errors
    /// When no more than the host's share is left.
    pub(super) fn check(self, path: &Path) -> Result<(), BackendError> {
        // Where nothing can be asked, the write itself says what is wrong.
        let Some(fs) = path.ancestors().find_map(|folder| {
            let here = folder.as_os_str().is_empty();
            statvfs(if here { Path::new(".") } else { folder }).ok()
        }) else {
            return Ok(());
        };
        let block = fs.f_frsize.max(1);
        let bytes_left = fs.f_bavail.saturating_mul(block);
        let bytes = self.share(self.bytes, fs.f_blocks.saturating_mul(block));
        // Some file systems do not count files.
        let files = self.share(self.files, fs.f_files);
        let why = if bytes_left < bytes {
            format!(
                "{} MiB are left on this disk, and guests leave {} to the host: make room",
                bytes_left >> 20,
                bytes >> 20
            )
        } else if fs.f_files > 0 && fs.f_favail < files {
            format!(
                "{} more files can be made on this disk, and guests leave {files} to the host: remove some",
                fs.f_favail
            )
        } else {
            return Ok(());
        };
        Err(file_error(path, Error::new(ErrorKind::StorageFull, why)))
    }

    /// The host's share of `all`.
    fn share(self, most: u64, all: u64) -> u64 {
        all.checked_div(self.of).map_or(most, |part| part.min(most))
    }

    /// As on a full disk.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self {
            bytes: u64::MAX,
            files: u64::MAX,
            of: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_keeps_a_tenth_of_a_small_disk_and_half_a_gibibyte_of_a_large_one() {
        let room = Room::default();
        assert_eq!(room.share(LEAST_BYTES, 100 << 20), 10 << 20);
        assert_eq!(room.share(LEAST_BYTES, 1 << 40), 512 << 20);
        assert_eq!(room.share(LEAST_FILES, 0), 0, "nobody counts files");
    }
}
