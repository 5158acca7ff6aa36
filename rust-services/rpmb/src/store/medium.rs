// SPDX-License-Identifier: Apache-2.0

//! What a store lies on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that can be read, written, and waited for. A write that was not waited for may be lost or
/// torn by a power cut, and later ones may survive it.
pub trait Medium: Send {
    /// Reads `buffer.len()` bytes at `at`.
    ///
    /// # Errors
    /// When the medium fails or ends before.
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` at `at`, as one run.
    ///
    /// # Errors
    /// When the medium fails; what lies there is then unknown.
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Waits until all that was written would survive a power cut.
    ///
    /// # Errors
    /// When the medium fails; nothing that was written since the last wait is certain then.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether what can be read is certain to be there after a power cut, so that it need not be
    /// written again.
    fn keeps_what_is_read(&self) -> bool {
        false
    }

    /// What a power cut may damage together: areas begin at multiples of it. In bytes.
    fn alignment(&self) -> u64;
}

impl Medium for File {
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The size never changes, so data is all there is to wait for.
        self.sync_data()
    }

    fn alignment(&self) -> u64 {
        4096
    }
}
