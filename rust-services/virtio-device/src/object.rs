// SPDX-License-Identifier: Apache-2.0

//! The memory of an object that another device has exported (VIRTIO 1.4, section 2.11), as a VMM
//! hands it over: a descriptor.
//!
//! Whoever made it still has it, and may do with it what it likes. So a file in memory is never
//! mapped: it is read and written by calls, and one that is cut short meanwhile is an error and no
//! SIGBUS. Nor does one whose owner has all that is written go to its end (`O_APPEND`) grow by us. A
//! dma-buf cannot be cut short and has no such calls; it is mapped, and told of each access
//! (`DMA_BUF_IOCTL_SYNC`) because of caches. That waits for the devices that are at it, so they are waited
//! for before, for a time. Anything else (a file on a disk or of another process'
//! making, a device, a pipe) may keep its reader waiting for ever and is refused.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, SeekFrom, fcntl_getfl, fstat, fstatfs, seek};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use rustix::ioctl::{Setter, ioctl, opcode};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// `statfs` of a file in memory (`TMPFS_MAGIC`): a memfd, or one in /dev/shm.
const IN_MEMORY: u64 = 0x0102_1994;
/// `statfs` of a dma-buf (`DMA_BUF_MAGIC`).
const DMA_BUF: u64 = 0x444d_4142;
/// `DMA_BUF_IOCTL_SYNC`.
const SYNC: rustix::ioctl::Opcode = opcode::write::<u64>(b'b', 0);
/// In what that takes: an access ends.
const SYNC_END: u64 = 1 << 2;

/// How long the devices that are at a dma-buf are waited for: six pictures at 60 a second.
const PATIENCE: Duration = Duration::from_millis(100);

/// Why an object's descriptor is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It cannot be looked at.
    #[error("the descriptor cannot be looked at: {0}")]
    Descriptor(#[from] Errno),
    /// It is something else.
    #[error("it is neither a file in memory nor a dma-buf, but of a file system {0:#x}")]
    Kind(u64),
    /// It lies where files in memory do, and is a device, a pipe or a directory.
    #[error("it is no regular file")]
    Special,
    /// It is not for reading and writing.
    #[error("it is not open for reading and writing")]
    Mode,
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// A dma-buf that cannot be mapped.
    #[error("the dma-buf cannot be mapped: {0}")]
    Mapping(String),
}

/// What is done with an object's bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ObjectAccess {
    /// They are read.
    Read,
    /// They are written.
    Write,
}

impl ObjectAccess {
    fn flag(self) -> u64 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
        }
    }

    /// What a dma-buf is polled for: who reads waits for those who write it, who writes for all.
    fn readiness(self) -> PollFlags {
        match self {
            Self::Read => PollFlags::IN,
            Self::Write => PollFlags::OUT,
        }
    }
}

/// Memory of another device.
#[derive(Debug)]
pub struct Object {
    file: File,
    /// Of a dma-buf.
    mapping: Option<MmapRegion>,
    len: usize,
    /// Bytes that it had at first, used or not.
    whole: u64,
    /// Who was at it was waited for once in vain: no more time is spent on that until it is free.
    late: AtomicBool,
}

impl Object {
    /// The object behind a descriptor, of which no more than `most` bytes are used.
    ///
    /// # Errors
    /// As [`ObjectError`].
    pub fn new(fd: OwnedFd, most: usize) -> Result<Self, ObjectError> {
        let kind = fstatfs(&fd)?.f_type;
        #[allow(
            clippy::cast_sign_loss,
            clippy::unnecessary_cast,
            reason = "its type differs between machines; the numbers have 32 bits"
        )]
        let kind = kind as u64 & u64::from(u32::MAX);
        if kind != IN_MEMORY && kind != DMA_BUF {
            return Err(ObjectError::Kind(kind));
        }
        // /dev is such a file system, too, and its disks have a length.
        let is_regular = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
        if kind == IN_MEMORY && !is_regular(fstat(&fd)?.st_mode) {
            return Err(ObjectError::Special);
        }
        if fcntl_getfl(&fd)? & OFlags::RWMODE != OFlags::RDWR {
            return Err(ObjectError::Mode);
        }
        let whole = seek(&fd, SeekFrom::End(0))?;
        let len = usize::try_from(whole).unwrap_or(usize::MAX).min(most);
        if len == 0 {
            return Err(ObjectError::Empty);
        }
        let file = File::from(fd);
        let mapping = match kind {
            DMA_BUF => Some(map(&file, len)?),
            _ => None,
        };
        Ok(Self {
            file,
            mapping,
            len,
            whole,
            late: AtomicBool::new(false),
        })
    }

    /// Its bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty one is refused")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says that bytes are about to be read or written: once for many of them. Devices that are at a
    /// dma-buf are waited for, but not long.
    ///
    /// # Errors
    /// Where they are at it still, or a file in memory is not as it was handed over. Nothing is to be
    /// read or written then, and no end to be told.
    pub fn begin(&self, access: ObjectAccess) -> io::Result<()> {
        if self.mapping.is_some() {
            let late = self.late.load(Ordering::Relaxed);
            let patience = if late { Duration::ZERO } else { PATIENCE };
            let waited = wait(&self.file, access.readiness(), patience);
            self.late.store(waited.is_err(), Ordering::Relaxed);
            waited?;
        } else if access == ObjectAccess::Write {
            self.still_takes_bytes_in_place()?;
        }
        self.sync(access.flag());
        Ok(())
    }

    /// Whoever made it has the same open file and may have had all that is written go to its end since
    /// (`O_APPEND`). A kernel that cannot be told to write in place nevertheless (before Linux 6.9) may
    /// lengthen it once then, and not again.
    fn still_takes_bytes_in_place(&self) -> io::Result<()> {
        let appends = fcntl_getfl(&self.file)?.contains(OFlags::APPEND);
        if appends || seek(&self.file, SeekFrom::End(0))? > self.whole {
            return Err(io::Error::other("it is not as it was handed over"));
        }
        Ok(())
    }

    /// Says that they have been.
    pub fn end(&self, access: ObjectAccess) {
        self.sync(access.flag() | SYNC_END);
    }

    /// Copies `bytes.len()` bytes from `offset` out of it.
    ///
    /// # Errors
    /// Where it does not have them, or not any more.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        let begin = self.holds(offset, bytes.len())?;
        match &self.mapping {
            None => self.file.read_exact_at(bytes, begin),
            Some(mapping) => {
                let slice = mapping.get_slice(offset, bytes.len());
                slice.map_err(io::Error::other)?.copy_to(bytes);
                Ok(())
            }
        }
    }

    /// Copies bytes to `offset` into it.
    ///
    /// # Errors
    /// Where it has no room for them, or takes none.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let begin = self.holds(offset, bytes.len())?;
        match &self.mapping {
            None => write_in_place(&self.file, bytes, begin),
            Some(mapping) => {
                let slice = mapping.get_slice(offset, bytes.len());
                slice.map_err(io::Error::other)?.copy_from(bytes);
                Ok(())
            }
        }
    }

    fn holds(&self, offset: usize, len: usize) -> io::Result<u64> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(offset as u64)
    }

    fn sync(&self, flags: u64) {
        if self.mapping.is_none() {
            return;
        }
        // SAFETY: `SYNC` is `_IOW('b', 0, struct dma_buf_sync)`, a structure of one 64-bit word, which the
        // kernel reads and keeps nothing of.
        let done = unsafe { ioctl(self.file.as_fd(), Setter::<SYNC, u64>::new(flags)) };
        if let Err(error) = done {
            // An exporter whose caches are coherent may not know it.
            log::debug!("a dma-buf took no sync {flags:#x}: {error}");
        }
    }
}

/// Waits until a descriptor is ready for something.
fn wait(file: impl AsFd, what: PollFlags, patience: Duration) -> io::Result<()> {
    let start = Instant::now();
    loop {
        let left = patience.saturating_sub(start.elapsed());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut one = [PollFd::new(&file, what)];
        match poll(&mut one, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes where it is said, even where the owner of the file has all that is written go to its end; where
/// the kernel cannot, as it does.
fn write_in_place(file: &File, mut bytes: &[u8], mut begin: u64) -> io::Result<()> {
    /// `RWF_NOAPPEND`
    const IN_PLACE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x20);
    while !bytes.is_empty() {
        let written = match pwritev2(file, &[IoSlice::new(bytes)], begin, IN_PLACE) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return file.write_all_at(bytes, begin),
            Err(error) => return Err(error.into()),
        };
        bytes = bytes.get(written..).unwrap_or_default();
        begin = begin.saturating_add(written as u64);
    }
    Ok(())
}

/// A dma-buf has one length from its making to its end, so that no access within it is a SIGBUS.
fn map(file: &File, len: usize) -> Result<MmapRegion, ObjectError> {
    let failed = |error: String| ObjectError::Mapping(error);
    let again = file
        .try_clone()
        .map_err(|error| failed(error.to_string()))?;
    MmapRegion::from_file(FileOffset::new(again, 0), len).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn memfd(bytes: u64) -> File {
        let file = File::from(memfd_create("object", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(bytes).unwrap();
        file
    }

    fn object(file: &File, most: usize) -> Result<Object, ObjectError> {
        Object::new(file.try_clone().unwrap().into(), most)
    }

    #[test]
    fn what_is_written_to_an_object_its_owner_reads_and_the_other_way_round() {
        let file = memfd(100);
        let object = object(&file, 1000).unwrap();
        assert_eq!(object.len(), 100);
        object.begin(ObjectAccess::Write).unwrap();
        object.write(90, b"0123456789").unwrap();
        object.end(ObjectAccess::Write);
        let mut seen = [0; 10];
        file.read_exact_at(&mut seen, 90).unwrap();
        assert_eq!(&seen, b"0123456789");
        file.write_all_at(b"abc", 7).unwrap();
        object.read(6, &mut seen).unwrap();
        assert_eq!(&seen, b"\0abc\0\0\0\0\0\0");
    }

    /// Makes a dma-buf of a file in memory (`UDMABUF_CREATE`): descriptor and flags, offset, size.
    struct Create([u64; 3]);

    // SAFETY: `_IOW('u', 0x42, struct udmabuf_create)`, as little-endian words; it gives a descriptor.
    unsafe impl rustix::ioctl::Ioctl for &Create {
        type Output = OwnedFd;
        const IS_MUTATING: bool = false;

        fn opcode(&self) -> rustix::ioctl::Opcode {
            opcode::write::<[u64; 3]>(b'u', 0x42)
        }

        fn as_ptr(&mut self) -> *mut std::ffi::c_void {
            self.0.as_ptr().cast_mut().cast()
        }

        unsafe fn output_from_ptr(
            fd: rustix::ioctl::IoctlOutput,
            _: *mut std::ffi::c_void,
        ) -> rustix::io::Result<OwnedFd> {
            use std::os::fd::FromRawFd;
            // SAFETY: the kernel has just made it, for us.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        }
    }

    #[test]
    #[ignore = "needs /dev/udmabuf, which the bench's guest has"]
    fn a_dma_buf_is_read_and_written_by_both() {
        use std::os::fd::AsRawFd;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("object", flags).unwrap());
        file.set_len(8192).unwrap();
        rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::SHRINK).unwrap();
        let device = File::options().read(true).write(true).open("/dev/udmabuf");
        let device = device.unwrap();
        let memfd = u64::try_from(file.as_raw_fd()).unwrap();
        // Bit 32: the dma-buf is closed by an exec.
        let create = Create([memfd | 1 << 32, 0, 8192]);
        // SAFETY: as the request says.
        let dma_buf = unsafe { ioctl(&device, &create) }.unwrap();
        let object = Object::new(dma_buf, 1 << 20).unwrap();
        assert!(object.mapping.is_some());
        assert_eq!(object.len(), 8192);
        // Each is an ioctl that the kernel knows.
        for end in [0, SYNC_END] {
            // SAFETY: as in `sync`.
            unsafe { ioctl(object.file.as_fd(), Setter::<SYNC, u64>::new(2 | end)) }.unwrap();
        }
        object.begin(ObjectAccess::Write).unwrap();
        object.write(4090, b"0123456789").unwrap();
        object.end(ObjectAccess::Write);
        let mut seen = [0; 10];
        file.read_exact_at(&mut seen, 4090).unwrap();
        assert_eq!(&seen, b"0123456789");
        file.write_all_at(b"abc", 8189).unwrap();
        object.begin(ObjectAccess::Read).unwrap();
        object.read(8188, &mut seen[..4]).unwrap();
        object.end(ObjectAccess::Read);
        assert_eq!(&seen[..4], b"\0abc");
        assert!(object.write(8192, &[1]).is_err());
    }

    #[test]
    fn nothing_beyond_an_objects_end_is_touched() {
        let file = memfd(100);
        let whole = object(&file, 1000).unwrap();
        assert!(whole.write(91, &[1; 10]).is_err());
        assert!(whole.read(usize::MAX, &mut [0]).is_err());
        let part = object(&file, 10).unwrap();
        assert_eq!(part.len(), 10);
        assert!(part.write(10, &[1]).is_err());
    }

    #[test]
    fn one_that_is_cut_short_under_its_reader_is_an_error_and_no_signal() {
        let file = memfd(8192);
        let object = object(&file, 8192).unwrap();
        file.set_len(10).unwrap();
        assert!(object.read(0, &mut [0; 8192]).is_err());
    }

    #[test]
    fn one_whose_owner_has_writes_go_to_its_end_is_not_lengthened() {
        use rustix::fs::fcntl_setfl;

        let file = memfd(100);
        let object = object(&file, 100).unwrap();
        let set = |flags| fcntl_setfl(&file, OFlags::RDWR | flags).unwrap();
        let write = || object.begin(ObjectAccess::Write);
        // Between the look and the write, which a new kernel does in place.
        write().unwrap();
        set(OFlags::APPEND);
        object.write(10, b"abc").unwrap();
        let long = file.metadata().unwrap().len();
        let mut seen = [0; 3];
        file.read_exact_at(&mut seen, 10).unwrap();
        assert!((long == 100 && seen == *b"abc") || long == 103);
        // And not once more, as long as it is so, or is longer than it was.
        assert!(write().is_err());
        assert!(object.begin(ObjectAccess::Read).is_ok());
        set(OFlags::empty());
        assert_eq!(write().is_ok(), long == 100);
        file.set_len(200).unwrap();
        assert!(write().is_err());
        assert_eq!(file.metadata().unwrap().len(), 200);
    }

    #[test]
    fn who_is_at_it_is_waited_for_and_not_for_ever() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let short = Duration::from_millis(1);
        let late = wait(&reader, PollFlags::IN, short).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        wait(&writer, PollFlags::OUT, short).unwrap();
        rustix::io::write(&writer, &[1]).unwrap();
        wait(&reader, PollFlags::IN, short).unwrap();
        assert_eq!(ObjectAccess::Read.readiness(), PollFlags::IN);
        assert_eq!(ObjectAccess::Write.readiness(), PollFlags::OUT);
    }

    #[test]
    fn what_might_keep_its_reader_waiting_is_refused() {
        let directory = File::open("/").unwrap();
        assert!(object(&directory, 10).is_err());
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = object(&null.unwrap(), 10);
        assert!(matches!(
            null,
            Err(ObjectError::Special | ObjectError::Kind(_))
        ));
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(matches!(Object::new(pipe, 10), Err(ObjectError::Kind(_))));
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let refused = Object::new(socket.into(), 10);
        assert!(matches!(refused, Err(ObjectError::Kind(_))));
        assert!(matches!(object(&memfd(0), 10), Err(ObjectError::Empty)));
    }

    #[test]
    fn one_that_cannot_be_written_is_refused() {
        let file = memfd(100);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let refused = object(&File::open(path).unwrap(), 10);
        assert!(matches!(refused, Err(ObjectError::Mode)));
    }
}
