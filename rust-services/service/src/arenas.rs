// SPDX-License-Identifier: Apache-2.0
//! How many heaps the C library keeps.
#![allow(unsafe_code)]

/// Limits glibc to two heaps. Left alone it asks /sys how many processors there are, when a thread
/// first meets another one in `malloc`: in a sandboxed thread that is the end of the service. Two
/// also use less memory, and a queue thread allocates nothing while requests flow.
pub(crate) fn limit() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt is called before a second thread exists; it takes no pointers.
        let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
        if done == 0 {
            log::warn!("the C library takes no limit for its heaps");
        }
    }
}
