// SPDX-License-Identifier: Apache-2.0

//! The smallest device: each request is answered with its own bytes. A place to begin a new one, and
//! the floor under every figure of docs/performance.md.
//!
//! `cargo run -p virtio-device --example echo -- SOCKET`

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use virtio_device::{ChainError, Device, Handler, Io, Options, QueueSpec, Server, ThreadPlan};

const QUEUES: [QueueSpec; 1] = [QueueSpec { name: "echo" }];

struct Echo;

impl Device for Echo {
    fn id(&self) -> u32 {
        // The entropy device's: it has one queue and no configuration.
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[QueueSpec] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        let handler = Box::new(EchoHandler { bytes: Vec::new() });
        vec![ThreadPlan {
            name: "echo",
            queues: vec![0],
            handler,
        }]
    }
}

struct EchoHandler {
    bytes: Vec<u8>,
}

impl EchoHandler {
    fn answer(&mut self, io: &Io, chain: &virtio_device::Chain) -> Result<u32, ChainError> {
        // A page is enough for an example; what a guest asks for is never what is allocated.
        let len = chain.readable().min(chain.writable()).min(4096);
        self.bytes.resize(len, 0);
        chain.read(io.memory(), 0, &mut self.bytes)?;
        chain.write(io.memory(), 0, &self.bytes)?;
        Ok(u32::try_from(len).unwrap_or(u32::MAX))
    }
}

impl Handler for EchoHandler {
    fn kicked(&mut self, io: &mut Io, queue: usize) {
        while let Some(chain) = io.pop(queue) {
            match self.answer(io, &chain) {
                Ok(written) => io.complete(chain, written),
                Err(_) => io.fail(chain, 0),
            }
        }
    }

    fn reset(&mut self, _io: &mut Io) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args_os().nth(1).ok_or("usage: echo SOCKET")?;
    let server = Server::new(Arc::new(Echo), Options::default())?;
    server.serve(&UnixListener::bind(socket)?)?;
    Ok(())
}
