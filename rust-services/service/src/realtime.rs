// SPDX-License-Identifier: Apache-2.0
//! Real-time scheduling of a thread and locked memory for it.
//!
//! Only what a thread itself needs is locked: its stack, and buffers it names. Locking all of
//! the process (`mlockall` with `MCL_FUTURE`) would also pin the guest's memory, which is mapped
//! later, belongs to somebody else, and may be gigabytes.

use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};

/// How much of the calling thread's stack below the caller is locked, in bytes. A queue thread
/// that needs more is a fault.
pub const LOCKED_STACK: usize = 64 * 1024;

/// The least stack for a thread that calls [`enter`], in bytes.
pub const LEAST_STACK: usize = 128 * 1024;

/// What the operating system gave, part by part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealtimeReport {
    /// The SCHED_FIFO priority, or why there is none.
    pub scheduling: Result<u8, String>,
    /// How many bytes of stack are locked, or why none are.
    pub stack: Result<usize, String>,
}

impl std::fmt::Display for RealtimeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.scheduling {
            Ok(priority) => write!(f, "SCHED_FIFO {priority}")?,
            Err(reason) => write!(f, "ordinary scheduling ({reason})")?,
        }
        match &self.stack {
            Ok(bytes) => write!(f, ", {} KiB of stack locked", bytes.wrapping_div(1024)),
            Err(reason) => write!(f, ", stack not locked ({reason})"),
        }
    }
}

/// Gives the calling thread SCHED_FIFO with `priority` (1 to 99) and locks its stack. What is
/// refused is reported and the thread goes on without it.
///
/// Call it in a thread spawned with at least [`LEAST_STACK`], before
/// [`Sandbox::enter`](crate::sandbox::Sandbox::enter) takes CAP_SYS_NICE away.
#[must_use]
pub fn enter(priority: u8) -> RealtimeReport {
    RealtimeReport {
        scheduling: first_in_first_out(priority),
        stack: lock_stack(),
    }
}

fn first_in_first_out(priority: u8) -> Result<u8, String> {
    let value = ThreadPriorityValue::try_from(priority).map_err(|reason| reason.to_owned())?;
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Crossplatform(value),
        ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
    )
    .map(|()| priority)
    .map_err(|error| match error {
        thread_priority::Error::OS(libc::EPERM) => {
            "not permitted: give the unit LimitRTPRIO= or CAP_SYS_NICE".to_owned()
        }
        other => format!("{other:?}"),
    })
}

fn lock_stack() -> Result<usize, String> {
    let here = 0_u8;
    let top = &raw const here;
    // The pages between the deepest point we will reach and here. Threads other than the first
    // have their whole stack mapped, so the range exists.
    let bottom = top.wrapping_sub(LOCKED_STACK);
    match region::lock(bottom, LOCKED_STACK) {
        Ok(guard) => {
            // Locked as long as the thread lives; its end unmaps the pages.
            std::mem::forget(guard);
            Ok(LOCKED_STACK)
        }
        Err(error) => Err(refused(&error)),
    }
}

fn refused(error: &region::Error) -> String {
    match error {
        region::Error::SystemCall(source)
            if matches!(source.raw_os_error(), Some(libc::ENOMEM | libc::EPERM)) =>
        {
            "over the limit: give the unit LimitMEMLOCK=".to_owned()
        }
        other => other.to_string(),
    }
}

/// A buffer of the service that stays in memory until this is dropped.
#[derive(Debug)]
pub struct LockedBuffer {
    bytes: Box<[u8]>,
    locked: Result<(), String>,
}

impl LockedBuffer {
    /// A zeroed buffer of `size` bytes, locked if that is allowed.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let bytes = vec![0; size].into_boxed_slice();
        let locked = if size == 0 {
            Ok(())
        } else {
            region::lock(bytes.as_ptr(), size)
                // Unlocked when the memory is given back to the system; pages at the edges may
                // be shared with other buffers, which must stay locked.
                .map(std::mem::forget)
                .map_err(|error| refused(&error))
        };
        Self { bytes, locked }
    }

    /// Whether the buffer is locked, or why not.
    ///
    /// # Errors
    /// The reason, with the remedy.
    pub fn locked(&self) -> Result<(), &str> {
        self.locked.as_ref().copied().map_err(String::as_str)
    }
}

impl std::ops::Deref for LockedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::DerefMut for LockedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked_kibibytes() -> u64 {
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("VmLck:"))
            .and_then(|rest| rest.trim().split(' ').next().unwrap().parse().ok())
            .unwrap()
    }

    /// Field 41 of stat(5) after the name: the scheduling policy, 1 is SCHED_FIFO.
    fn policy_of_this_thread() -> u32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        after_name
            .split_whitespace()
            .nth(38)
            .unwrap()
            .parse()
            .unwrap()
    }

    #[test]
    fn the_report_says_what_the_kernel_says() {
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(|| {
                let report = enter(20);
                match &report.scheduling {
                    Ok(priority) => {
                        assert_eq!(*priority, 20);
                        assert_eq!(policy_of_this_thread(), 1);
                    }
                    Err(reason) => {
                        assert!(reason.contains("LimitRTPRIO="), "{reason}");
                        assert_eq!(policy_of_this_thread(), 0);
                    }
                }
                match &report.stack {
                    Ok(bytes) => assert!(locked_kibibytes() * 1024 >= *bytes as u64),
                    Err(reason) => assert!(reason.contains("LimitMEMLOCK="), "{reason}"),
                }
            })
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn a_locked_buffer_is_zeroed_and_can_be_empty() {
        let mut buffer = LockedBuffer::new(10_000);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer[9_999] = 1;
        assert!(LockedBuffer::new(0).locked().is_ok());
    }
}
