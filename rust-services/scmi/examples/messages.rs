// SPDX-License-Identifier: Apache-2.0

//! Sends a service many times the same command: what is measured while it runs is the service.
//!
//! `cargo run --example messages -- SOCKET IN_FLIGHT COUNT [PROTOCOL MESSAGE [WORD…] then] PROTOCOL
//! MESSAGE [WORD…]`; protocol, message and words are hexadecimal. What comes before `then` is sent
//! once, whatever is answered. Prints, in nanoseconds: the median of the round trips with one
//! in flight, or the time per message with more; then the 99th percentile.

use std::time::Instant;

use frontend::Deadline;
use frontend::clients::scmi::{COMMANDS, MESSAGE_SIZE, ScmiClient, header};

/// A command of these words.
fn command(words: &[String]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let words: Result<Vec<u32>, _> = words
        .iter()
        .map(|word| u32::from_str_radix(word, 16))
        .collect();
    let words = words?;
    let [protocol, message, parameters @ ..] = words.as_slice() else {
        return Err("a command is PROTOCOL MESSAGE [WORD…]".into());
    };
    let header = header(u8::try_from(*protocol)?, u8::try_from(*message)?, 1);
    let words = std::iter::once(&header).chain(parameters);
    Ok(words.flat_map(|word| word.to_le_bytes()).collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: messages SOCKET IN_FLIGHT COUNT PROTOCOL MESSAGE [WORD…]";
    let mut words = std::env::args().skip(1);
    let socket = words.next().ok_or(usage)?;
    let in_flight: usize = words.next().ok_or(usage)?.parse()?;
    let count: usize = words.next().ok_or(usage)?.parse()?;
    let words: Vec<String> = words.collect();
    let mut commands = words.rsplit(|word| word == "then").map(command);
    let bytes = commands.next().ok_or(usage)??;
    let before = commands.collect::<Result<Vec<_>, _>>()?;
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
    let mut options = ScmiClient::options();
    for queue in &mut options.queues {
        // The most that other services take.
        queue.size = 64;
    }
    let mut client = ScmiClient::start(stream, &options)?;
    for bytes in before.iter().rev() {
        client.exchange(bytes, MESSAGE_SIZE)?;
    }
    let reply = client.exchange(&bytes, MESSAGE_SIZE)?;
    if reply.status != 0 {
        return Err(format!("it is answered with status {}", reply.status).into());
    }
    let prepared: Result<Vec<_>, _> = (0..in_flight)
        .map(|_| client.prepare(&bytes, MESSAGE_SIZE))
        .collect();
    let prepared = prepared?;
    let mut times = Vec::new();
    let mut left = count;
    while left > 0 {
        let now = left.min(in_flight);
        let begin = Instant::now();
        if let [only] = prepared.as_slice() {
            client.repeat(only)?;
        } else {
            for message in prepared.iter().take(now) {
                client.post(message)?;
            }
            let ring = client.guest_mut().ring_mut(COMMANDS);
            ring.kick()?;
            ring.wait_all(Deadline::patient())?;
        }
        let each = u128::try_from(now)?;
        times.push(begin.elapsed().as_nanos().checked_div(each).unwrap_or(0));
        left = left.saturating_sub(now);
    }
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len().saturating_mul(percent) / 100)
            .copied()
    };
    println!("{} {}", at(50).unwrap_or(0), at(99).unwrap_or(0));
    Ok(())
}
