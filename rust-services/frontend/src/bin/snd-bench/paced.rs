// SPDX-License-Identifier: Apache-2.0
//! Playback at the pace of the sound, as a guest plays: how late its buffers come back, and what of it
//! went wrong.
use std::time::{Duration, Instant};

use frontend::clients::snd::wire::{Params, event, request};
use frontend::clients::snd::{SndClient, TX};
use frontend::service_under_test::ServiceUnderTest;
use frontend::{Deadline, Error, Result};

use crate::distribution::Distribution;
use crate::pinning::raise;
use crate::workload::{ask, period};
use crate::{FRAMES, PERIOD};

/// Buffers in flight: 160 ms, as Linux has.
const IN_FLIGHT: usize = 16;
/// VIRTIO_SND_PCM_F_EVT_XRUNS.
const EVT_XRUNS: u32 = 1 << 4;
/// Priority of the driver, and of the service's own threads.
const URGENT: &str = "20";
/// How long a buffer may take to come back before the service is taken for dead.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a stretch of playback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    /// How much later than the sound's own pace buffers came back, in nanoseconds.
    pub(crate) lateness: Distribution,
    /// Buffers.
    pub(crate) periods: u64,
    /// Under-runs that the service has told of.
    pub(crate) under_runs: u64,
}

/// Plays `duration` of sound on stream 0, by a thread that is as urgent as the service's own: else it
/// is the driver's lateness that is measured. Says so where that is not allowed.
pub(crate) fn play(service: &ServiceUnderTest, duration: Duration) -> Result<Heard> {
    std::thread::scope(|scope| {
        let driver = scope.spawn(|| {
            if !raise(URGENT) {
                eprintln!("without SCHED_FIFO: lateness is the driver's too");
            }
            play_here(service, duration)
        });
        driver
            .join()
            .unwrap_or_else(|_| Err(Error::Service("the driver has panicked".into())))
    })
}

fn play_here(service: &ServiceUnderTest, duration: Duration) -> Result<Heard> {
    let stream = service.connect(Deadline::patient())?;
    let mut client = SndClient::start(stream, &SndClient::options())?;
    prepare(&mut client, 0, EVT_XRUNS)?;
    let messages = (0..IN_FLIGHT)
        .map(|_| period(&client))
        .collect::<Result<Vec<_>>>()?;
    let ring = client.guest_mut().ring_mut(TX);
    for message in &messages {
        ring.add(&message.segments)?;
    }
    ring.kick()?;
    ask(&mut client, request::PCM_START, 0)?;
    let begin = Instant::now();
    let mut times = Vec::new();
    // Buffers come back in their order.
    for message in messages.iter().cycle() {
        let ring = client.guest_mut().ring_mut(TX);
        ring.wait(Deadline::after(PATIENCE))?;
        times.push(begin.elapsed().as_nanos() as u64);
        if begin.elapsed() >= duration {
            break;
        }
        ring.add(&message.segments)?;
        ring.kick()?;
    }
    let mut under_runs = 0;
    loop {
        match client.event(Deadline::after(Duration::ZERO)) {
            Ok(event) => under_runs += u64::from(event.code == event::PCM_XRUN),
            Err(Error::TimedOut(_)) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Heard {
        periods: times.len() as u64,
        lateness: Distribution::of(lateness(times)),
        under_runs,
    })
}

/// How much later than an even pace these times are; the earliest is on time.
fn lateness(times: Vec<u64>) -> Vec<u64> {
    let step = FRAMES * 1_000_000_000 / 48_000;
    let offsets: Vec<i64> = (0..)
        .zip(times)
        .map(|(number, time): (i64, u64)| time as i64 - number * step as i64)
        .collect();
    let earliest = offsets.iter().min().copied().unwrap_or(0);
    offsets
        .into_iter()
        .map(|offset| (offset - earliest) as u64)
        .collect()
}

/// SET_PARAMS and PREPARE for periods of 10 ms.
pub(crate) fn prepare(client: &mut SndClient, stream: u32, features: u32) -> Result<()> {
    let params = Params {
        period_bytes: PERIOD,
        buffer_bytes: IN_FLIGHT as u32 * PERIOD,
        features,
        ..Params::CD_LIKE
    };
    crate::workload::accepted(client.set_params(stream, &params)?)?;
    ask(client, request::PCM_PREPARE, stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_behind_the_pace_is_late() {
        let step = 10_000_000;
        let times = vec![7, 7 + step, 7 + 2 * step + 500, 7 + 3 * step];
        assert_eq!(lateness(times), [0, 0, 500, 0]);
    }
}
