// SPDX-License-Identifier: Apache-2.0

//! Sends a service many times the same command: what is measured while it runs is the service.
//!
//! `cargo run --example messages -- SOCKET COUNT PROTOCOL MESSAGE [WORD…]`; numbers are hexadecimal
//! but for COUNT.

use frontend::clients::scmi::{MESSAGE_SIZE, ScmiClient, header};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: messages SOCKET COUNT PROTOCOL MESSAGE [WORD…]";
    let mut words = std::env::args().skip(1);
    let socket = words.next().ok_or(usage)?;
    let count: u32 = words.next().ok_or(usage)?.parse()?;
    let protocol = u8::from_str_radix(&words.next().ok_or(usage)?, 16)?;
    let message = u8::from_str_radix(&words.next().ok_or(usage)?, 16)?;
    let mut bytes = header(protocol, message, 1).to_le_bytes().to_vec();
    for word in words {
        bytes.extend_from_slice(&u32::from_str_radix(&word, 16)?.to_le_bytes());
    }
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
    let mut client = ScmiClient::start(stream, &ScmiClient::options())?;
    let reply = client.exchange(&bytes, MESSAGE_SIZE)?;
    println!("status {}, {} bytes", reply.status, reply.body.len());
    let prepared = client.prepare(&bytes, MESSAGE_SIZE)?;
    let start = std::time::Instant::now();
    for _ in 0..count {
        client.repeat(&prepared)?;
    }
    println!("{count} messages in {:?}", start.elapsed());
    Ok(())
}
