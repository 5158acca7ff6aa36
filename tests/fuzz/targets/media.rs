// SPDX-License-Identifier: Apache-2.0

//! The functions of virtio-media, a camera, a decoder and an encoder: any ioctls with any payloads
//! from several sessions, buffers whose pages are the guest's or not, sessions that end, time that
//! passes, a codec that says what it likes. Whatever comes in, an answer is no larger than what was
//! asked, and a successor takes over whatever was saved.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use agl_virtio_codec::scripted::Script;
use agl_virtio_codec::{Codec, Limits, Size};
use agl_virtio_fuzz::coder::Word;
use agl_virtio_media::camera::Camera;
use agl_virtio_media::camera::source::TestPicture;
use agl_virtio_media::codec::{CodecDevice, Offer, Way};
use agl_virtio_media::config::Config;
use agl_virtio_media::function::{Context, Function};
use agl_virtio_media::memory::Budget;
use agl_virtio_media::outbox::Outbox;
use agl_virtio_media::payload::Input;
use agl_virtio_media::statistics::Statistics;
use agl_virtio_media::v4l2::{Buffer, Ioctl, Plane};
use agl_virtio_media::wire::SgEntry;
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use virtio_device::Memory;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use zerocopy::{FromZeros, IntoBytes};

/// What happens next.
#[derive(Arbitrary, Debug)]
enum Deed {
    /// An ioctl with a payload of words, as V4L2's are.
    Words { session: u8, number: u8, words: Vec<u8>, more: u8 },
    /// A buffer of the guest's or of the device's, queued as V4L2 has it.
    Queue { mmap: bool, session: u8, index: u8, type_: u8, planes: u8, used: u16, flags: u32 },
    /// The codec says something.
    Says(Word),
    /// An ioctl with any payload.
    Any { session: u8, number: u8, bytes: Vec<u8> },
    /// A plane of the device's is to be mapped.
    Map { session: u8, index: u8, plane: u8, capture: bool },
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

/// Codecs of small pictures.
fn codec(way: Way, script: &Script) -> CodecDevice {
    let offer = Offer {
        way,
        codecs: vec![Codec::H264, Codec::Vp8],
        limits: Limits { least: Size::new(16, 16), most: Size::new(128, 128) },
        max_streams: 2,
        max_pixel_rate: 1 << 30,
        max_input_bytes: 1 << 17,
        max_runs: 8,
    };
    CodecDevice::new(offer, Box::new(script.clone()), Arc::default(), Arc::default())
}

/// What is fuzzed.
#[derive(Arbitrary, Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Camera,
    Decoder,
    Encoder,
}

impl Kind {
    fn device(self, script: &Script) -> Box<dyn Function> {
        let mut device: Box<dyn Function> = match self {
            Self::Camera => Box::new(camera()),
            Self::Decoder => Box::new(codec(Way::Decode, script)),
            Self::Encoder => Box::new(codec(Way::Encode, script)),
        };
        (0..SESSIONS).for_each(|session| device.open(session).expect("nothing is in its way"));
        device
    }
}

/// One page of the guest's that is the whole of each buffer, over and over.
fn queued(mmap: bool, index: u8, type_: u8, planes: u8, used: u16, flags: u32) -> Vec<u8> {
    let type_ = [1_u32, 9, 10][usize::from(type_) % 3];
    let planes = if type_ == 1 { 0 } else { u32::from(planes % 4) };
    let mut buffer = Buffer::new_zeroed();
    (buffer.index, buffer.type_, buffer.memory, buffer.flags) = (u32::from(index % 4), type_, if mmap { 1 } else { 2 }, flags);
    buffer.length = if planes == 0 { ROOM } else { planes };
    let mut payload = buffer.as_bytes().to_vec();
    for _ in 0..planes {
        let mut plane = Plane::new_zeroed();
        (plane.bytesused, plane.length) = (used.into(), ROOM);
        payload.extend_from_slice(plane.as_bytes());
    }
    for _ in 0..planes.max(1) {
        let entry = SgEntry { start: 0, len: ROOM, reserved: 0 };
        payload.extend_from_slice(entry.as_bytes());
    }
    payload
}

/// Bytes of the device's memory that the guest may have.
const BUDGET: u64 = 2 << 20;
/// Bytes of the guest's memory, and of each buffer.
const ROOM: u32 = 128 << 10;

fuzz_target!(|input: (Kind, Vec<Deed>)| {
    let (kind, deeds) = input;
    let ranges = [(GuestAddress(0), ROOM as usize)];
    let memory = Memory::new(Arc::new(GuestMemoryMmap::from_ranges(&ranges).expect("a little memory")));
    let budget = Budget::new(BUDGET);
    let mut outbox = Outbox::default();
    let mut now = Duration::from_secs(1);
    let script = Script::default();
    let mut device = kind.device(&script);
    for deed in deeds {
        let mut context = Context { memory: &memory, budget: Some(&budget), now, outbox: &mut outbox };
        let (session, number, payload) = match deed {
            Deed::Words { session, number, words, more } => {
                let mut payload: Vec<u8> = words.iter().flat_map(|word| u32::from(*word).to_le_bytes()).collect();
                payload.resize(payload.len() + usize::from(more), 0);
                (session, number, payload)
            }
            Deed::Any { session, number, bytes } => (session, number, bytes),
            Deed::Queue { mmap, session, index, type_, planes, used, flags } => (session, 15, queued(mmap, index, type_, planes, used, flags)),
            Deed::Says(word) => {
                script.says([word.into()]);
                end_lost(&mut *device, &mut context);
                continue;
            }
            Deed::Map { session, index, plane, capture } => {
                let offset = u32::from(capture) << 30 | (u32::from(index) << 3 | u32::from(plane)) << 16;
                if let Some(memory) = device.memory_at(u32::from(session) % SESSIONS, offset) {
                    assert!(memory.memory().len() >= memory.len() as usize && memory.len() > 0);
                }
                assert!(budget.taken() <= BUDGET);
                continue;
            }
            Deed::Close(session) => {
                let session = u32::from(session) % SESSIONS;
                device.close(session, &mut context);
                outbox.forget(session);
                device.open(session).expect("nothing is in its way");
                continue;
            }
            Deed::Pass(time) => {
                now += Duration::from_millis(time.into());
                context.now = now;
                let lost = end_lost(&mut *device, &mut context);
                assert!(!lost || kind != Kind::Camera, "the test picture does not fail");
                assert!(device.due(now).is_none_or(|due| due > now), "nothing is due that was just done");
                continue;
            }
            Deed::Reset => {
                device.reset();
                outbox.clear();
                (0..SESSIONS).for_each(|session| device.open(session).expect("nothing is in its way"));
                continue;
            }
            Deed::Die => {
                let saved = device.saved();
                device = kind.device(&script);
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
        if kind != Kind::Camera {
            end_lost(&mut *device, &mut context);
        }
    }
});

/// Lets the device go on, and ends sessions that cannot, as the device around it would. Whether
/// there were any.
fn end_lost(device: &mut dyn Function, context: &mut Context<'_>) -> bool {
    let lost = device.turn(context);
    for (session, _) in &lost {
        device.close(*session, context);
        context.outbox.forget(*session);
        device.open(*session).expect("nothing is in its way");
    }
    !lost.is_empty()
}
