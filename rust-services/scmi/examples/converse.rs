// SPDX-License-Identifier: Apache-2.0

//! A guest's driver that a person or a script speaks to: a command a line, `PROTOCOL MESSAGE WORD…`
//! in hexadecimal, and a line with status and words for each. What was asked for holds until the
//! input ends.
//!
//! `cargo run --example converse -- SOCKET`

use std::io::Write;

use frontend::clients::scmi::{MESSAGE_SIZE, ScmiClient, header};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args().nth(1).ok_or("usage: converse SOCKET")?;
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
    let mut client = ScmiClient::start(stream, &ScmiClient::options())?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Result<Vec<u32>, _> = line
            .split_whitespace()
            .map(|word| u32::from_str_radix(word, 16))
            .collect();
        let words = words?;
        let [protocol, message, parameters @ ..] = words.as_slice() else {
            return Err("write PROTOCOL MESSAGE WORD…".into());
        };
        let head = header(u8::try_from(*protocol)?, u8::try_from(*message)?, 1);
        let mut bytes = head.to_le_bytes().to_vec();
        bytes.extend(parameters.iter().flat_map(|word| word.to_le_bytes()));
        let reply = client.exchange(&bytes, MESSAGE_SIZE)?;
        let body = reply.body.chunks(4).map(|word| {
            let mut bytes = [0; 4];
            for (at, byte) in bytes.iter_mut().zip(word) {
                *at = *byte;
            }
            format!(" {:x}", u32::from_le_bytes(bytes))
        });
        println!("{}{}", reply.status, body.collect::<String>());
        std::io::stdout().flush()?;
    }
    Ok(())
}
