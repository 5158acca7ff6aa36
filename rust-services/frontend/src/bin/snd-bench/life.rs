// SPDX-License-Identifier: Apache-2.0
//! How soon a killed service serves again, and how soon others step back for an emergency.
use std::path::Path;
use std::time::{Duration, Instant};

use frontend::clients::snd::wire::request;
use frontend::clients::snd::{SndClient, TX};
use frontend::service_under_test::ServiceUnderTest;
use frontend::{Deadline, Error, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::paced::prepare;
use crate::subject::{Subject, io};
use crate::workload::{ask, level};
use crate::{FRAMES, PERIOD};

/// The streams of the default card.
const MULTIMEDIA: u32 = 0;
const EMERGENCY: u32 = 1;
/// Bytes before the samples in the files that the service writes.
const HEADER: usize = 80;
/// What the guest plays: each sample of the multimedia stream is this.
const LEVEL: i16 = 20_000;

/// Milliseconds from each of so many kills until a request of the same guest is answered, sorted.
pub(crate) fn back_after_kills_ms(
    subject: &Subject,
    keeper: &Path,
    kills: usize,
) -> Result<Vec<f64>> {
    let service = subject.launch().below_keeper(keeper).start()?;
    let stream = service.connect(Deadline::patient())?;
    let mut client = SndClient::start(stream, &SndClient::options())?;
    let mut times = Vec::new();
    for _ in 0..kills {
        let victim = service.wait_service_pid(None, Deadline::patient())?;
        client.pcm_info(0..1)?;
        client.guest().session()?.synchronise()?;
        let begin = Instant::now();
        end_of(&service, victim)?;
        client.pcm_info(0..1)?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Kills the service, and waits for its end: it must not answer in its last moments.
fn end_of(service: &ServiceUnderTest, victim: u32) -> Result<()> {
    let gone = |what: &str| Error::Service(format!("the service {what}"));
    let pid = i32::try_from(victim).ok().and_then(Pid::from_raw);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let pidfd = pidfd.ok_or_else(|| gone("has gone before it was killed"))?;
    service.kill_service()?;
    let ended = Deadline::patient().readable(std::os::fd::AsFd::as_fd(&pidfd))?;
    ended.then_some(()).ok_or_else(|| gone("cannot be killed"))
}

/// Milliseconds from the START of an emergency stream to the frame of the multimedia stream from which
/// on it is soft, in what is handed to the loudspeaker. Multimedia plays buffers of a period.
pub(crate) fn ducked_after_ms(subject: &Subject) -> Result<f64> {
    let service = subject.launch().start()?;
    let stream = service.connect(Deadline::patient())?;
    let mut client = SndClient::start(stream, &SndClient::options())?;
    for stream in [MULTIMEDIA, EMERGENCY] {
        prepare(&mut client, stream, 0)?;
    }
    let loud: Vec<_> = (0..100)
        .map(|_| level(&client, MULTIMEDIA, LEVEL))
        .collect::<Result<_>>()?;
    let alarm: Vec<_> = (0..40)
        .map(|_| level(&client, EMERGENCY, LEVEL))
        .collect::<Result<_>>()?;
    let ring = client.guest_mut().ring_mut(TX);
    for message in loud.iter().chain(&alarm) {
        ring.add(&message.segments)?;
    }
    ring.kick()?;
    ask(&mut client, request::PCM_START, MULTIMEDIA)?;
    let ring = client.guest_mut().ring_mut(TX);
    for _ in 0..20 {
        ring.wait(Deadline::patient())?;
    }
    // What was consumed when the emergency began is where the ear is.
    let consumed = ring.used_idx()?;
    ask(&mut client, request::PCM_START, EMERGENCY)?;
    let ring = client.guest_mut().ring_mut(TX);
    for _ in 0..60 {
        ring.wait(Deadline::patient())?;
    }
    let soft = first_soft_frame(&subject.file("out/Multimedia-1.wav"))?;
    Ok((soft as f64 - f64::from(consumed) * FRAMES as f64) / 48.0)
}

/// The first frame of the soft stretch, once there is one of two periods.
fn first_soft_frame(file: &Path) -> Result<usize> {
    let deadline = Deadline::patient();
    loop {
        let bytes = std::fs::read(file).map_err(io("read what was played"))?;
        let frames: Vec<i16> = bytes
            .get(HEADER..)
            .unwrap_or_default()
            .chunks_exact(4)
            .map(|frame| i16::from_le_bytes([frame[0], frame[1]]))
            .collect();
        // The soft level is what the stream ends at, for now.
        let last = frames.last().copied().unwrap_or(LEVEL);
        let first = frames
            .iter()
            .rposition(|sample| sample.abs_diff(last) > 1)
            .map_or(0, |at| at + 1);
        if last < LEVEL / 2 && frames.len() > first + 2 * (PERIOD / 4) as usize {
            return Ok(first);
        }
        if deadline.passed() {
            return Err(Error::TimedOut("the others to be ducked".into()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
