// SPDX-License-Identifier: Apache-2.0
//! What is sent to a service: one kind of message, over and over, from buffers that stay.
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use frontend::clients::snd::wire::{PCM_INFO_SIZE, Params, query_info, request, status, u32_at};
use frontend::clients::snd::{CONTROL, SndClient, TX};
use frontend::ring::CallWait;
use frontend::{Buffer, Deadline, Error, Result, Segment};

use crate::PERIOD;
use crate::watchdog::Watchdog;

/// How long a whole run may take: one under callgrind on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// One kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// PCM_INFO of one stream, one in flight.
    PcmInfo,
    /// Playback buffers of one period.
    Playback {
        /// How many are out at once.
        in_flight: usize,
    },
}

/// A session that is ready to send.
pub(crate) struct Sender {
    client: SndClient,
    queue: u16,
    messages: Vec<Message>,
    _watchdog: Watchdog,
}

/// A message in guest memory.
pub(crate) struct Message {
    pub(crate) segments: Vec<Segment>,
    status: Buffer,
}

impl Workload {
    /// Connect, and set up all that comes before the messages.
    pub(crate) fn begin(self, stream: UnixStream) -> Result<Sender> {
        let mut options = SndClient::options();
        for queue in &mut options.queues {
            queue.call = CallWait::Read;
            queue.region = Some(0);
            // The most that the peer takes.
            queue.size = 64;
        }
        // A blocking wait for a call ends by the watchdog where the service is silent.
        let mut guest = frontend::Guest::connect(stream, &options)?;
        let watchdog = Watchdog::over(&guest, PATIENCE)?;
        guest.start()?;
        let mut client = SndClient::over(guest);
        client.fill_events(16)?;
        let (queue, messages) = match self {
            Self::PcmInfo => {
                let request = query_info(request::PCM_INFO, 0, 1, PCM_INFO_SIZE);
                let prepared = client.prepare(&request, PCM_INFO_SIZE)?;
                let (segments, status) = (prepared.segments().to_vec(), prepared.response());
                (CONTROL, vec![Message { segments, status }])
            }
            Self::Playback { in_flight } => {
                start_stream(&mut client)?;
                let messages = (0..in_flight)
                    .map(|_| period(&client))
                    .collect::<Result<Vec<_>>>()?;
                (TX, messages)
            }
        };
        Ok(Sender {
            client,
            queue,
            messages,
            _watchdog: watchdog,
        })
    }
}

/// Bring stream 0 to where it takes buffers.
fn start_stream(client: &mut SndClient) -> Result<()> {
    let params = Params {
        period_bytes: PERIOD,
        buffer_bytes: 16 * PERIOD,
        ..Params::CD_LIKE
    };
    accepted(client.set_params(0, &params)?)?;
    ask(client, request::PCM_PREPARE, 0)?;
    ask(client, request::PCM_START, 0)
}

/// A request about a stream, which must succeed.
pub(crate) fn ask(client: &mut SndClient, number: u32, stream: u32) -> Result<()> {
    accepted(client.pcm(number, stream)?)
}

/// Whether an answer is OK.
pub(crate) fn accepted(answer: u32) -> Result<()> {
    if answer == status::OK {
        return Ok(());
    }
    Err(Error::Service(format!("a request is refused: {answer:#x}")))
}

/// One period of a quiet sawtooth for stream 0.
pub(crate) fn period(client: &SndClient) -> Result<Message> {
    playback(client, 0, |at| (at * 37 % 4000) as i16)
}

/// One period in which every sample is the same.
pub(crate) fn level(client: &SndClient, stream: u32, level: i16) -> Result<Message> {
    playback(client, stream, |_| level)
}

fn playback(client: &SndClient, stream: u32, sample: impl Fn(u32) -> i16) -> Result<Message> {
    let memory = client.guest().memory();
    let header = memory.alloc(4, 4)?;
    memory.write(header.addr, &stream.to_le_bytes())?;
    let data = memory.alloc(PERIOD, 64)?;
    let samples: Vec<u8> = (0..PERIOD / 2)
        .flat_map(|at| sample(at).to_le_bytes())
        .collect();
    memory.write(data.addr, &samples)?;
    let status = memory.alloc(8, 8)?;
    let segments = vec![
        Segment::Readable(header),
        Segment::Readable(data),
        Segment::Writable(status),
    ];
    Ok(Message { segments, status })
}

impl Sender {
    /// Send `count` messages with as many out at once as the workload has: each as soon as one
    /// comes back. Checks the status of all.
    pub(crate) fn send(&mut self, count: u64) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        if self.messages.len() == 1 {
            return (0..count).try_for_each(|_| self.one(deadline));
        }
        let mut left = count;
        while left > 0 {
            let batch = left.min(self.messages.len() as u64);
            let ring = self.client.guest_mut().ring_mut(self.queue);
            for message in &self.messages[..batch as usize] {
                ring.add(&message.segments)?;
            }
            ring.kick()?;
            ring.wait_all(deadline)?;
            left -= batch;
        }
        self.check()
    }

    /// The times of `count` round trips, in nanoseconds.
    pub(crate) fn time(&mut self, count: u64) -> Result<Vec<u64>> {
        let deadline = Deadline::after(PATIENCE);
        let mut times = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let begin = Instant::now();
            self.one(deadline)?;
            times.push(begin.elapsed().as_nanos() as u64);
        }
        self.check()?;
        Ok(times)
    }

    /// One round trip of the first message.
    fn one(&mut self, deadline: Deadline) -> Result<()> {
        let ring = self.client.guest_mut().ring_mut(self.queue);
        ring.add(&self.messages[0].segments)?;
        ring.kick()?;
        ring.wait(deadline).map(drop)
    }

    /// Whether the last answers were all OK.
    fn check(&self) -> Result<()> {
        let memory = self.client.guest().memory();
        for message in &self.messages {
            let answer = u32_at(&memory.bytes(message.status.addr, 4)?, 0);
            if answer != status::OK {
                return Err(Error::Service(format!(
                    "a message was answered {answer:#x}"
                )));
            }
        }
        Ok(())
    }
}
