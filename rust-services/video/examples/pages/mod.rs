// SPDX-License-Identifier: Apache-2.0

//! A guest's memory as it comes: in pages.

use std::error::Error;

use frontend::Buffer;
use frontend::clients::video::{OK, VideoClient};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

const PAGE: u32 = 4096;

/// Pages for so many bytes.
pub(crate) fn pages(client: &mut VideoClient, bytes: u32) -> Outcome<Vec<Buffer>> {
    let memory = client.guest_mut().memory().clone();
    let count = bytes.div_ceil(PAGE);
    (0..count)
        .map(|_| Ok(memory.alloc(PAGE, u64::from(PAGE))?))
        .collect()
}

/// Writes from their beginning.
pub(crate) fn fill(client: &mut VideoClient, pages: &[Buffer], bytes: &[u8]) -> Outcome<()> {
    let memory = client.guest_mut().memory().clone();
    for (page, bytes) in pages.iter().zip(bytes.chunks(PAGE as usize)) {
        memory.write(page.addr, bytes)?;
    }
    Ok(())
}

/// Whether a request was obeyed.
pub(crate) fn ok(answer: u32) -> Outcome<()> {
    (answer == OK)
        .then_some(())
        .ok_or_else(|| format!("answered with {answer:#x}").into())
}
