// SPDX-License-Identifier: Apache-2.0

//! `MMC_IOC_MULTI_CMD`: several commands to a card, with nobody else's between them.
//!
//! The only `unsafe` code of this crate. The kernel is handed addresses of buffers in a structure,
//! which no safe interface can describe; here the buffers are borrowed for as long as the call
//! takes, and their lengths are taken from them.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

use crate::wire::{FRAME_SIZE, Frame};

/// `CMD25`, `WRITE_MULTIPLE_BLOCK`.
const WRITE_MULTIPLE_BLOCK: u32 = 25;
/// `CMD18`, `READ_MULTIPLE_BLOCK`.
const READ_MULTIPLE_BLOCK: u32 = 18;
/// `MMC_RSP_SPI_R1 | MMC_RSP_R1 | MMC_CMD_ADTC`: an answer with the card's state, and data.
const FLAGS: u32 = 0x80 | 0x15 | 0x20;
/// In `write_flag`: all of it or nothing (`CMD23`, bit 31).
const RELIABLE: u32 = 1 << 31;
/// The major number of eMMC, which the request's code has.
const MMC_BLOCK_MAJOR: u8 = 179;
/// Commands that a sequence has at most: frames, the wish for the result, the answer.
const MOST_COMMANDS: usize = 3;
/// Bytes that the kernel takes for one command (`MMC_IOC_MAX_BYTES`).
pub const MOST_BYTES: usize = 512 * 1024;

/// `struct mmc_ioc_cmd`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Command {
    write_flag: u32,
    is_acmd: i32,
    opcode: u32,
    arg: u32,
    response: [u32; 4],
    flags: u32,
    block_size: u32,
    blocks: u32,
    postsleep_min_us: u32,
    postsleep_max_us: u32,
    data_timeout_ns: u32,
    cmd_timeout_ms: u32,
    padding: u32,
    data: u64,
}

/// `struct mmc_ioc_multi_cmd` with room for our sequences.
#[repr(C)]
struct Commands {
    count: u64,
    commands: [Command; MOST_COMMANDS],
}

const _: () = assert!(
    FRAME_SIZE == 512
        && size_of::<Command>() == 72
        && size_of::<Commands>() == 8 + 72 * MOST_COMMANDS
);

/// A sequence and the buffers that it names.
struct Sequence<'a> {
    commands: Commands,
    buffers: PhantomData<&'a mut [Frame]>,
}

impl<'a> Sequence<'a> {
    fn new() -> Self {
        Self {
            commands: Commands {
                count: 0,
                commands: [Command::default(); MOST_COMMANDS],
            },
            buffers: PhantomData,
        }
    }

    fn push(&mut self, command: Command) {
        let place = usize::try_from(self.commands.count).unwrap_or(MOST_COMMANDS);
        if let Some(slot) = self.commands.commands.get_mut(place) {
            *slot = command;
            self.commands.count = self.commands.count.saturating_add(1);
        }
    }

    /// Send frames to the card.
    fn write(&mut self, frames: &'a [Frame], reliable: bool) {
        self.push(Command {
            write_flag: 1 | if reliable { RELIABLE } else { 0 },
            opcode: WRITE_MULTIPLE_BLOCK,
            ..command(frames.len(), frames.as_ptr() as u64)
        });
    }

    /// Get frames from the card.
    fn read(&mut self, frames: &'a mut [Frame]) {
        let len = frames.len();
        self.push(Command {
            opcode: READ_MULTIPLE_BLOCK,
            ..command(len, frames.as_mut_ptr() as u64)
        });
    }
}

fn command(frames: usize, data: u64) -> Command {
    Command {
        flags: FLAGS,
        block_size: 512,
        blocks: u32::try_from(frames).unwrap_or(0),
        data,
        ..Command::default()
    }
}

// SAFETY: the request's code is that of MMC_IOC_MULTI_CMD (_IOWR of the header alone, as the kernel
// defines it), and `as_ptr` is that header followed by as many commands as it counts, at most
// `MOST_COMMANDS`, which `Commands` has room for. Each command's buffer was borrowed for 'a, which
// outlives the sequence, mutably where the kernel writes it, and has `blocks` frames of
// `block_size` bytes. The kernel writes nothing else but the commands' own answers.
unsafe impl Ioctl for Sequence<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<u64>(MMC_BLOCK_MAJOR, 1)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.commands).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// Sends a request, with a wish for its result where there is one, and gets the answer.
///
/// # Errors
/// What the kernel says: the card did not do it, or `device` is no RPMB partition.
pub(super) fn exchange(
    device: impl AsFd,
    request: &[Frame],
    result_read: Option<&Frame>,
    answer: &mut [Frame],
) -> io::Result<()> {
    let bytes = request.len().max(answer.len()).saturating_mul(FRAME_SIZE);
    if request.is_empty() || answer.is_empty() || bytes > MOST_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut sequence = Sequence::new();
    // Only what changes the card is written reliably, as the standard wants it.
    sequence.write(request, result_read.is_some());
    if let Some(frame) = result_read {
        sequence.write(std::slice::from_ref(frame), false);
    }
    sequence.read(answer);
    // SAFETY: see the implementation of `Ioctl` above; any descriptor may be asked: one that is no
    // RPMB partition refuses the request's code.
    unsafe { ioctl(device, sequence) }.map_err(io::Error::from)
}
