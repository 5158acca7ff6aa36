// SPDX-License-Identifier: Apache-2.0

//! A driver that plays one value on and on, on a thread of its own, and hears events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use frontend::clients::snd::wire::{Params, request, status};
use frontend::clients::snd::{Event, SndClient, TX};
use frontend::{Deadline, Error};

/// Every sample of what it plays.
pub(crate) const SAMPLE: i16 = 20_000;

pub(crate) struct Player {
    stop: Arc<AtomicBool>,
    events: Receiver<Event>,
    thread: JoinHandle<SndClient>,
}

impl Player {
    /// Sets a stream up, and plays until [`Player::stop`].
    pub(crate) fn start(client: SndClient, stream: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, events) = channel();
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || play(client, stream, &asked, &sender));
        Self {
            stop,
            events,
            thread,
        }
    }

    /// The next event that the guest hears.
    pub(crate) fn event(&self) -> Event {
        let event = self.events.recv_timeout(Duration::from_secs(60));
        event.expect("the guest hears an event")
    }

    /// Stops and releases the stream; the driver.
    pub(crate) fn stop(self) -> SndClient {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn play(
    mut client: SndClient,
    stream: u32,
    stop: &AtomicBool,
    events: &Sender<Event>,
) -> SndClient {
    let params = Params::CD_LIKE;
    let period = SAMPLE
        .to_le_bytes()
        .repeat(params.period_bytes as usize / 2);
    assert_eq!(client.set_params(stream, &params).unwrap(), status::OK);
    let pcm = |client: &mut SndClient, code| {
        assert_eq!(client.pcm(code, stream).unwrap(), status::OK, "{code:#x}");
    };
    pcm(&mut client, request::PCM_PREPARE);
    let mut out = 0;
    for _ in 0..params.buffer_bytes / params.period_bytes {
        client.play(stream, &period).unwrap();
        out += 1;
    }
    client.kick(TX).unwrap();
    pcm(&mut client, request::PCM_START);
    while !stop.load(Ordering::Relaxed) {
        let transfer = client.played(Deadline::patient()).unwrap();
        assert_eq!(transfer.status, status::OK);
        client.play(stream, &period).unwrap();
        client.kick(TX).unwrap();
        loop {
            match client.event(Deadline::after(Duration::ZERO)) {
                Ok(event) => events.send(event).unwrap(),
                Err(Error::TimedOut(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    pcm(&mut client, request::PCM_STOP);
    pcm(&mut client, request::PCM_RELEASE);
    for _ in 0..out {
        client.played(Deadline::patient()).unwrap();
    }
    client
}
