// SPDX-License-Identifier: Apache-2.0

//! The tool for a person or a script: `agl-virtio-rpmb-tool`.

mod client;
mod trace;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use zerocopy::{FromBytes, IntoBytes};
use zeroize::Zeroizing;

use crate::key::Key;
use crate::mmc::Card;
use crate::wire::{BLOCK_SIZE, FRAME_SIZE, Frame, KEY_SIZE};
use client::{Client, ClientError};
use trace::Traced;

/// Programs, reads, writes and counts a replay-protected memory block: that of a virtual machine's
/// virtio-rpmb device, or the RPMB partition of an eMMC.
#[derive(Parser)]
#[command(name = "agl-virtio-rpmb-tool", version, after_help = EXAMPLES)]
struct Arguments {
    /// The device
    #[arg(long, value_name = "PATH", default_value = "/dev/virtio_rpmb0")]
    device: PathBuf,

    /// Add every frame to this file: a letter for its way (> to the device, < back), then its bytes in hex
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  head -c 32 /dev/urandom > key; agl-virtio-rpmb-tool program-key key
  agl-virtio-rpmb-tool counter --key key
  agl-virtio-rpmb-tool write --key key --address 16 settings.bin
  agl-virtio-rpmb-tool read --key key --address 16 --blocks 4 settings.bin

Exit codes: 0 done; 1 the device refused, and says why; 2 its answer is not to be trusted;
64 wrong usage; 74 the device or a file cannot be used.";

#[derive(clap::Subcommand)]
enum Command {
    /// Program the key: once, and for ever
    ProgramKey {
        /// File with its 32 bytes; - for standard input
        key: PathBuf,
    },
    /// Tell the write counter
    Counter {
        /// Check the answer with the key in this file
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Write blocks of 256 bytes
    Write {
        /// File with the key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The first block
        #[arg(long, value_name = "BLOCK")]
        address: u16,
        /// Most blocks in one request: the device writes those together or not at all
        #[arg(long, value_name = "BLOCKS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        at_once: u16,
        /// File with the data, a multiple of 256 bytes; - for standard input
        data: PathBuf,
    },
    /// Read blocks of 256 bytes
    Read {
        /// Check the answer with the key in this file
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The first block
        #[arg(long, value_name = "BLOCK")]
        address: u16,
        /// How many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        blocks: u16,
        /// Use this nonce, 32 hex digits, and not a random one: to compare devices
        #[arg(long, value_name = "HEX", value_parser = nonce)]
        nonce: Option<[u8; 16]>,
        /// File for the data; - for standard output
        data: PathBuf,
    },
    /// Send frames from a file as they are, and get frames back: for tests and analysis
    Send {
        /// How many frames the answer has
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        answers: u16,
        /// File with the request: frames of 512 bytes; the wish for a result comes by itself
        request: PathBuf,
        /// File for the answer; - for standard output
        answer: PathBuf,
    },
}

fn nonce(text: &str) -> Result<[u8; 16], String> {
    let number = u128::from_str_radix(text, 16)
        .ok()
        .filter(|_| text.len() == 32);
    number
        .map(u128::to_be_bytes)
        .ok_or_else(|| "write 32 hex digits".to_owned())
}

#[derive(Debug, thiserror::Error)]
enum ToolError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: a key has {KEY_SIZE} bytes, this file {len}")]
    Key { path: PathBuf, len: usize },
    #[error("{path}: {len} bytes are not whole blocks of {BLOCK_SIZE}")]
    Data { path: PathBuf, len: usize },
    #[error("{path}: {len} bytes are not whole frames of {FRAME_SIZE}")]
    Frames { path: PathBuf, len: usize },
}

impl ToolError {
    fn code(&self) -> u8 {
        match self {
            Self::Client(ClientError::Refused(_)) => 1,
            Self::Client(ClientError::Untrusted(_)) => 2,
            Self::Key { .. }
            | Self::Data { .. }
            | Self::Frames { .. }
            | Self::Client(ClientError::Range(_)) => 64,
            Self::Client(ClientError::Device(_)) | Self::File { .. } => 74,
        }
    }
}

/// Runs with the process's command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Fails where standard output is closed, and then nobody reads it anyway.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match run(&arguments) {
        Ok(line) => {
            if !line.is_empty() {
                println!("{line}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("agl-virtio-rpmb-tool: {error}");
            ExitCode::from(error.code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<String, ToolError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&arguments.device);
    let mut card: Box<dyn Card> = Box::new(device.map_err(in_file(&arguments.device))?);
    if let Some(path) = &arguments.trace {
        let file = OpenOptions::new().create(true).append(true).open(path);
        card = Box::new(Traced::new(card, file.map_err(in_file(path))?));
    }
    let mut client = Client::new(card);
    Ok(match &arguments.command {
        Command::ProgramKey { key } => {
            client.program_key(&read_key(key)?)?;
            "the key is programmed".to_owned()
        }
        Command::Counter { key } => {
            let key = key.as_deref().map(read_key).transpose()?;
            client.counter(key.as_ref())?.to_string()
        }
        Command::Write {
            key,
            address,
            at_once,
            data: path,
        } => {
            let (key, data) = (read_key(key)?, read_all(path)?);
            if data.is_empty() || data.len() % BLOCK_SIZE != 0 {
                let (path, len) = (path.clone(), data.len());
                return Err(ToolError::Data { path, len });
            }
            let counter = client.write(&key, *address, &data, *at_once)?;
            let blocks = data.len().checked_div(BLOCK_SIZE).unwrap_or(0);
            format!("{blocks} blocks written from {address} on; the counter is {counter}")
        }
        Command::Read {
            key,
            address,
            blocks,
            nonce,
            data: path,
        } => {
            let key = key.as_deref().map(read_key).transpose()?;
            let data = client.read(key.as_ref(), *address, *blocks, *nonce)?;
            write_all(path, &data)?;
            String::new()
        }
        Command::Send {
            answers,
            request: path,
            answer,
        } => {
            let bytes = read_all(path)?;
            let frames = <[Frame]>::ref_from_bytes(&bytes)
                .ok()
                .filter(|frames| !frames.is_empty())
                .ok_or_else(|| ToolError::Frames {
                    path: path.clone(),
                    len: bytes.len(),
                })?;
            let frames = client.send(frames, (*answers).into())?;
            write_all(answer, frames.as_bytes())?;
            String::new()
        }
    })
}

fn in_file(path: &Path) -> impl FnOnce(io::Error) -> ToolError {
    move |source| ToolError::File {
        path: path.to_owned(),
        source,
    }
}

fn read_all(path: &Path) -> Result<Zeroizing<Vec<u8>>, ToolError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.map_err(in_file(path))?;
    Ok(bytes)
}

fn write_all(path: &Path, bytes: &[u8]) -> Result<(), ToolError> {
    let written = if path == Path::new("-") {
        io::stdout().lock().write_all(bytes)
    } else {
        std::fs::write(path, bytes)
    };
    written.map_err(in_file(path))
}

fn read_key(path: &Path) -> Result<Key, ToolError> {
    let bytes = read_all(path)?;
    let key: Result<[u8; KEY_SIZE], _> = bytes.as_slice().try_into();
    let (path, len) = (path.to_owned(), bytes.len());
    key.map(Key::new).map_err(|_| ToolError::Key { path, len })
}
