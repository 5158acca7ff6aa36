// SPDX-License-Identifier: Apache-2.0

//! The camera of virtio-media: any ioctls with any payloads from several sessions, buffers whose
//! pages are the guest's or not, sessions that end, time that passes. Whatever comes in, an answer
//! is no larger than what was asked, and a successor takes over whatever was saved.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use agl_virtio_media::camera::Camera;
use agl_virtio_media::camera::source::TestPicture;
use agl_virtio_media::config::Config;
use agl_virtio_media::function::{Context, Function};
use agl_virtio_media::outbox::Outbox;
use agl_virtio_media::payload::Input;
use agl_virtio_media::statistics::Statistics;
use agl_virtio_media::v4l2::Ioctl;
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use virtio_device::Memory;

/// What happens next.
#[derive(Arbitrary, Debug)]
enum Deed {
    /// An ioctl with a payload of words, as V4L2's are.
    Words { session: u8, number: u8, words: Vec<u8>, more: u8 },
    /// An ioctl with any payload.
    Any { session: u8, number: u8, bytes: Vec<u8> },
    /// A session ends.
    Close(u8),
    /// Milliseconds.
    Pass(u8),
    /// The driver resets.
    Reset,
    /// The service dies, and another one goes on.
    Die,
}

const SESSIONS: u32 = 3;

fn camera() -> Camera {
    let modes = Config::default().modes();
    Camera::new("camera".into(), modes, Box::<TestPicture>::default(), Arc::<Statistics>::default())
}

fuzz_target!(|deeds: Vec<Deed>| {
    let memory = Memory::empty();
    let mut outbox = Outbox::default();
    let mut now = Duration::from_secs(1);
    let mut device = camera();
    for deed in deeds {
        let mut context = Context { memory: &memory, now, outbox: &mut outbox };
        let (session, number, payload) = match deed {
            Deed::Words { session, number, words, more } => {
                let mut payload: Vec<u8> = words.iter().flat_map(|word| u32::from(*word).to_le_bytes()).collect();
                payload.resize(payload.len() + usize::from(more), 0);
                (session, number, payload)
            }
            Deed::Any { session, number, bytes } => (session, number, bytes),
            Deed::Close(session) => {
                device.close(u32::from(session) % SESSIONS, &mut context);
                outbox.forget(u32::from(session) % SESSIONS);
                continue;
            }
            Deed::Pass(time) => {
                now += Duration::from_millis(time.into());
                context.now = now;
                assert!(device.turn(&mut context).is_empty(), "the test picture does not fail");
                assert!(device.due(now).is_none_or(|due| due > now), "nothing is due that was just done");
                continue;
            }
            Deed::Reset => {
                device.reset();
                outbox.clear();
                continue;
            }
            Deed::Die => {
                let saved = device.saved();
                device = camera();
                device.restore(&saved);
                assert_eq!(device.saved(), saved);
                outbox.clear();
                continue;
            }
        };
        let Some(ioctl) = Ioctl::from_number(number.into()) else { continue };
        let asked = payload.len();
        let answer = device.ioctl(u32::from(session) % SESSIONS, ioctl, Input::new(&payload), &mut context);
        assert!(answer.payload.len() <= asked.max(4));
    }
});
