// SPDX-License-Identifier: Apache-2.0
//! Takes ownership of a descriptor that the parent process left open: `--socket-fd`,
//! `--record-fd` and systemd's socket activation.
//!
//! This file holds the only `unsafe` of the crate. A listening socket cannot be opened again
//! through /proc/self/fd, and `pidfd_getfd` is refused in most containers.
#![allow(unsafe_code)]

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

/// Two threads may not take the same descriptor between its check and its marking.
static TAKING: Mutex<()> = Mutex::new(());

/// Why a descriptor was not taken.
#[derive(Debug, thiserror::Error)]
pub enum InheritedFdError {
    /// 0 to 2 belong to the standard streams.
    #[error("descriptor {0} is a standard stream: hand over one from 3 upwards")]
    Standard(RawFd),
    /// Nobody left this descriptor open.
    #[error("descriptor {0} is not open: the parent must leave it open without FD_CLOEXEC")]
    NotOpen(RawFd),
    /// It is open, but this process opened it, or it was taken before.
    #[error("descriptor {0} was not inherited, or it was taken already: name each one once")]
    NotInherited(RawFd),
}

/// Takes the descriptor `number`, once per process.
///
/// The descriptor is close-on-exec afterwards.
///
/// # Errors
/// See [`InheritedFdError`].
pub fn take(number: RawFd) -> Result<OwnedFd, InheritedFdError> {
    if number <= 2 {
        return Err(InheritedFdError::Standard(number));
    }
    let _one_at_a_time = TAKING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: `number` is not -1. The borrow lives for the two fcntl calls below only, which
    // do nothing but look at and set a flag; where the descriptor is not open they fail with
    // EBADF and the borrow is dropped.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(borrowed).map_err(|_| InheritedFdError::NotOpen(number))?;
    // Whatever came through execve had FD_CLOEXEC clear, and whatever the standard library,
    // rustix or this function made since has it set. So a clear flag means: inherited, and
    // owned by nobody yet. Setting it is also the record that it was taken.
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(InheritedFdError::NotInherited(number));
    }
    fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(|_| InheritedFdError::NotOpen(number))?;
    // SAFETY: the descriptor is open and, by the argument above, has no other owner in this
    // process; the lock makes check and marking one step, so it is handed out only once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

    #[test]
    fn an_inherited_descriptor_is_taken_once() {
        let file = tempfile::tempfile().unwrap();
        // What an inherited descriptor looks like: no FD_CLOEXEC, no owner.
        let number = rustix::io::dup(file.as_fd()).unwrap().into_raw_fd();
        let taken = take(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(matches!(
            take(number),
            Err(InheritedFdError::NotInherited(_))
        ));
    }

    #[test]
    fn what_this_process_opened_itself_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(
            take(file.as_raw_fd()),
            Err(InheritedFdError::NotInherited(_))
        ));
    }

    #[test]
    fn closed_negative_and_standard_descriptors_are_refused() {
        assert!(matches!(take(-1), Err(InheritedFdError::Standard(-1))));
        assert!(matches!(take(1), Err(InheritedFdError::Standard(1))));
        assert!(matches!(
            take(900_000),
            Err(InheritedFdError::NotOpen(900_000))
        ));
    }
}
