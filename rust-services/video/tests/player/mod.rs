// SPDX-License-Identifier: Apache-2.0

//! A driver that plays clips through the service, and one that codes pictures.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use agl_virtio_codec::Size;
use frontend::clients::video::{
    DONE, EOS, ERROR, INPUT, KEY, OK, OUTPUT, Params, RESOLUTION_CHANGED, VideoClient, done, word,
};
use frontend::service_under_test::{Launch, ServiceUnderTest};
use frontend::shared_objects::{SharedObjects, Uuid};
use frontend::{Buffer, ChainId, Deadline};
use rustix::fs::{MemfdFlags, memfd_create};

use super::bench::Fnv;

/// Coded formats by their number.
pub(crate) const H264: u32 = 0x1002;
pub(crate) const HEVC: u32 = 0x1003;
pub(crate) const VP8: u32 = 0x1004;
pub(crate) const VP9: u32 = 0x1005;
/// A raw format by its number.
pub(crate) const NV12: u32 = 4;

/// Bytes of a buffer for coded bytes.
pub(crate) const CODED: u32 = 64 * 1024;
/// Buffers of each queue.
const INPUTS: u32 = 3;
const OUTPUTS: u32 = 3;
/// How long everything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often both queues are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Encoders of clips, with a key picture now and then.
pub(crate) const LIBVPX8: &str = "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=12";
pub(crate) const LIBVPX9: &str =
    "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=12 lag-in-frames=0";

/// The service, a decoder or an encoder.
pub(crate) fn launch(directory: &Path, function: &str) -> Launch {
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-video"),
        directory.join("socket"),
    )
    .args(["--log", "error", "--bus", "none", "--function", function])
}

/// A guest of it.
pub(crate) fn client(service: &ServiceUnderTest) -> VideoClient {
    let stream = service.connect(Deadline::patient()).unwrap();
    VideoClient::start(stream, &VideoClient::options()).unwrap()
}

/// Memory of a resource.
pub(crate) struct Resource {
    pub(crate) runs: Vec<Buffer>,
}

impl Resource {
    /// In pieces, no two of which follow each other.
    pub(crate) fn new(driver: &mut VideoClient, bytes: u32) -> Self {
        let memory = driver.guest_mut().memory().clone();
        let piece = 5000;
        let mut left = bytes;
        let mut runs = Vec::new();
        while left > 0 {
            let len = left.min(piece);
            runs.push(memory.alloc(len, 64).unwrap());
            left -= len;
        }
        Self { runs }
    }

    pub(crate) fn write(&self, driver: &mut VideoClient, bytes: &[u8]) {
        let memory = driver.guest_mut().memory().clone();
        let mut rest = bytes;
        for run in &self.runs {
            let (now, later) = rest.split_at(rest.len().min(run.len as usize));
            memory.write(run.addr, now).unwrap();
            rest = later;
        }
        assert!(rest.is_empty(), "a unit is larger than its buffer");
    }

    pub(crate) fn read(&self, driver: &mut VideoClient) -> Vec<u8> {
        let memory = driver.guest_mut().memory().clone();
        let runs = self.runs.iter();
        runs.flat_map(|run| memory.bytes(run.addr, run.len).unwrap())
            .collect()
    }

    pub(crate) fn free(self, driver: &mut VideoClient) {
        let memory = driver.guest_mut().memory().clone();
        self.runs.into_iter().for_each(|run| memory.free(run));
    }
}

/// Memory that another device might have.
pub(crate) fn object(bytes: u64) -> File {
    let file = File::from(memfd_create("object", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(bytes).unwrap();
    file
}

/// The name of an object of a test.
pub(crate) fn name(queue: u32, id: u32) -> Uuid {
    let mut name = [0x5a; 16];
    name[..4].copy_from_slice(&queue.to_be_bytes());
    name[12..].copy_from_slice(&id.to_be_bytes());
    name
}

/// Attaches a resource that lies in an object, which the VMM finds.
pub(crate) fn attach_object(
    driver: &mut VideoClient,
    objects: &SharedObjects,
    (stream, queue, id): (u32, u32, u32),
    object: Uuid,
) -> u32 {
    let chain = driver.attach_objects(stream, queue, id, &[object]).unwrap();
    let session = driver.guest_mut().session().unwrap();
    let channel = session.channel().unwrap();
    let looked_for = objects.serve(channel, Deadline::patient()).unwrap();
    assert_eq!(looked_for, object);
    word(&driver.finish(chain).unwrap(), 0)
}

/// Plays clips.
pub(crate) struct Player<'a> {
    driver: &'a mut VideoClient,
    stream: u32,
    raw: u32,
    inputs: Vec<Resource>,
    free_inputs: Vec<u32>,
    outputs: Vec<Resource>,
    /// Where the pictures are, if not in the guest's memory.
    objects: Option<SharedObjects>,
    params: Option<Params>,
    /// Requests on their way: which queue and resource.
    queued: HashMap<ChainId, (u32, u32)>,
    ended: bool,
    pub(crate) sums: Vec<u64>,
    pub(crate) timestamps: Vec<u64>,
    pub(crate) keys: Vec<bool>,
    pub(crate) sizes: Vec<(u32, u32)>,
    failed: bool,
}

impl<'a> Player<'a> {
    pub(crate) fn new(driver: &'a mut VideoClient, stream: u32, coded: u32, raw: u32) -> Self {
        assert_eq!(driver.create(stream, coded).unwrap(), OK);
        Self::of_created(driver, stream, coded, raw)
    }

    /// One whose pictures go into objects of another device.
    #[allow(dead_code, reason = "not all tests have objects")]
    pub(crate) fn into_objects(
        driver: &'a mut VideoClient,
        stream: u32,
        coded: u32,
        raw: u32,
    ) -> Self {
        assert_eq!(driver.create_in(stream, coded, [0, 1]).unwrap(), OK);
        let mut player = Self::of_created(driver, stream, coded, raw);
        player.objects = Some(SharedObjects::default());
        player
    }

    pub(crate) fn of_created(
        driver: &'a mut VideoClient,
        stream: u32,
        coded: u32,
        raw: u32,
    ) -> Self {
        let mut params = Params::new(INPUT, coded, 64, 64);
        params.0[12] = CODED;
        assert_eq!(driver.set_params(stream, &params).unwrap(), OK);
        let params = Params::new(OUTPUT, driver.draft().raw(raw), 64, 64);
        assert_eq!(driver.set_params(stream, &params).unwrap(), OK);
        let size = driver.params(stream, INPUT).unwrap().plane(0).0;
        assert_eq!(size, CODED);
        let mut inputs = Vec::new();
        for id in 1..=INPUTS {
            let resource = Resource::new(driver, CODED);
            let attached = driver.attach(stream, INPUT, id, &[&resource.runs]);
            assert_eq!(attached.unwrap(), OK);
            inputs.push(resource);
        }
        Self {
            driver,
            stream,
            raw,
            inputs,
            free_inputs: (1..=INPUTS).collect(),
            outputs: Vec::new(),
            objects: None,
            params: None,
            queued: HashMap::new(),
            ended: false,
            sums: Vec::new(),
            timestamps: Vec::new(),
            keys: Vec::new(),
            sizes: Vec::new(),
            failed: false,
        }
    }

    /// Plays units and drains; each has the next timestamp.
    pub(crate) fn play(&mut self, units: &[Vec<u8>], from: u64) {
        self.feed(units, from);
        assert_eq!(self.driver.drain(self.stream).unwrap(), OK);
        self.ended = false;
        self.until(|player| player.ended && player.free_inputs.len() == INPUTS as usize);
    }

    /// Queues units as buffers get free.
    pub(crate) fn feed(&mut self, units: &[Vec<u8>], from: u64) {
        for (number, unit) in units.iter().enumerate() {
            self.until(|player| !player.free_inputs.is_empty());
            self.push(unit, from + number as u64);
        }
    }

    /// Queues one unit and does not look at what becomes of it.
    pub(crate) fn feed_only(&mut self, unit: &[u8]) {
        self.push(unit, 0);
    }

    fn push(&mut self, unit: &[u8], timestamp: u64) {
        let Some(id) = self.free_inputs.pop() else {
            panic!("no buffer is free")
        };
        self.inputs[id as usize - 1].write(self.driver, unit);
        let bytes = u32::try_from(unit.len()).unwrap();
        let chain = self.driver.queue(self.stream, INPUT, id, timestamp, bytes);
        self.queued.insert(chain.unwrap(), (INPUT, id));
    }

    /// Plays what need not be a stream: each buffer comes back, or the stream fails.
    pub(crate) fn survive(&mut self, units: &[Vec<u8>]) {
        for unit in units {
            self.until(|player| !player.free_inputs.is_empty() || player.failed);
            if self.failed {
                return self.give_up();
            }
            self.push(unit, 0);
        }
        self.driver.drain(self.stream).unwrap();
        if self.outputs.is_empty() {
            self.prepare_output();
        }
        self.until(|player| player.ended || player.failed);
        self.give_up();
    }

    /// Ends the stream as it is.
    fn give_up(&mut self) {
        assert_eq!(self.driver.destroy(self.stream).unwrap(), OK);
        for (chain, _) in self.queued.drain() {
            self.driver.finish(chain).unwrap();
        }
    }

    /// Takes everything back, as for a seek.
    pub(crate) fn seek(&mut self) {
        assert_eq!(self.driver.clear(self.stream, INPUT).unwrap(), OK);
        self.until(|player| player.free_inputs.len() == INPUTS as usize);
    }

    /// Attaches and queues resources for pictures as they are supposed to be.
    pub(crate) fn prepare_output(&mut self) {
        let params = self.driver.params(self.stream, OUTPUT).unwrap();
        self.new_outputs(params);
    }

    /// Requests that wait.
    pub(crate) fn outstanding(&self) -> Vec<ChainId> {
        self.queued.keys().copied().collect()
    }

    /// Frees nothing: the stream is about to be lost.
    pub(crate) fn forget(self) {}

    pub(crate) fn close(self) {
        let Self {
            driver,
            stream,
            inputs,
            outputs,
            queued,
            ..
        } = self;
        assert_eq!(driver.destroy(stream).unwrap(), OK);
        for chain in queued.into_keys() {
            driver.finish(chain).unwrap();
        }
        for resource in inputs.into_iter().chain(outputs) {
            resource.free(driver);
        }
    }

    fn until(&mut self, end: impl Fn(&Self) -> bool) {
        let deadline = Deadline::after(PATIENCE);
        while !end(self) {
            assert!(!deadline.passed(), "nothing comes: {:?}", self.queued);
            // The answers that belong before an event are in their queue before it is.
            let event = self.driver.heard_event().unwrap();
            while let Ok((chain, bytes)) = self.driver.next(Deadline::after(LOOK)) {
                self.answered(chain, &bytes);
                if event.is_none() {
                    break;
                }
            }
            match event {
                None => {}
                Some((RESOLUTION_CHANGED, stream)) if stream == self.stream => self.resize(),
                Some((ERROR, stream)) if stream == self.stream => self.failed = true,
                Some(other) => panic!("an event of nobody: {other:x?}"),
            }
        }
    }

    fn resize(&mut self) {
        assert_eq!(self.driver.clear(self.stream, OUTPUT).unwrap(), OK);
        while self.queued.values().any(|(queue, _)| *queue == OUTPUT) {
            let (chain, bytes) = self.driver.next(Deadline::patient()).unwrap();
            self.answered(chain, &bytes);
        }
        assert_eq!(self.driver.detach(self.stream, OUTPUT).unwrap(), OK);
        for resource in std::mem::take(&mut self.outputs) {
            resource.free(self.driver);
        }
        let params = self.driver.params(self.stream, OUTPUT).unwrap();
        self.sizes.push(params.crop());
        self.new_outputs(params);
    }

    fn new_outputs(&mut self, params: Params) {
        let (bytes, stride) = params.plane(0);
        assert!(stride >= params.size().0 && bytes > 0, "{params:?}");
        for id in 1..=OUTPUTS {
            if let Some(objects) = &mut self.objects {
                let named = name(OUTPUT, id);
                objects.add(named, object(bytes.into()));
                let place = (self.stream, OUTPUT, id);
                assert_eq!(attach_object(self.driver, objects, place, named), OK);
                self.queue_output(id);
                continue;
            }
            let resource = Resource::new(self.driver, bytes);
            let attached = self
                .driver
                .attach(self.stream, OUTPUT, id, &[&resource.runs]);
            assert_eq!(attached.unwrap(), OK);
            self.outputs.push(resource);
            self.queue_output(id);
        }
        self.params = Some(params);
    }

    fn queue_output(&mut self, id: u32) {
        let chain = self.driver.queue(self.stream, OUTPUT, id, 0, 0).unwrap();
        self.queued.insert(chain, (OUTPUT, id));
    }

    fn answered(&mut self, chain: ChainId, bytes: &[u8]) {
        let Some((queue, id)) = self.queued.remove(&chain) else {
            panic!("nobody asked for {chain:?}")
        };
        let answer = done(bytes);
        if queue == INPUT {
            self.free_inputs.push(id);
            return;
        }
        if answer.kind != DONE {
            return;
        }
        if answer.flags & EOS != 0 {
            assert_eq!(answer.sizes[0], 0);
            self.ended = true;
            self.queue_output(id);
        } else if answer.sizes[0] > 0 {
            self.keep(id);
            self.timestamps.push(answer.timestamp);
            self.keys.push(answer.flags & KEY != 0);
            self.queue_output(id);
        }
    }

    /// Notes the sum of what is seen.
    fn keep(&mut self, id: u32) {
        let memory = match &self.objects {
            Some(objects) => bytes_of(objects.get(name(OUTPUT, id)).unwrap()),
            None => self.outputs[id as usize - 1].read(self.driver),
        };
        let params = self.params.as_ref().unwrap();
        self.sums.push(sum_of(&memory, params, self.raw));
    }
}

fn bytes_of(object: &File) -> Vec<u8> {
    let len = usize::try_from(object.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; len];
    object.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The sum of what is seen of a picture, as the host's own decoder has it.
pub(crate) fn sum_of(memory: &[u8], params: &Params, raw: u32) -> u64 {
    let (width, height) = params.crop();
    let (width, height) = (width as usize, height as usize);
    let rows = params.size().1 as usize;
    let stride = params.plane(0).1 as usize;
    let (half, half_rows) = (width.div_ceil(2), height.div_ceil(2));
    // Offset, stride, bytes of a row, rows.
    let chroma = stride * rows;
    let planes = match raw {
        1..=3 => vec![(0, stride, width * 4, height)],
        4 => vec![
            (0, stride, width, height),
            (chroma, stride, half * 2, half_rows),
        ],
        _ => vec![
            (0, stride, width, height),
            (chroma, stride / 2, half, half_rows),
            (
                chroma + stride / 2 * (rows / 2),
                stride / 2,
                half,
                half_rows,
            ),
        ],
    };
    let mut sum = Fnv::new();
    for (offset, stride, bytes, rows) in planes {
        for row in 0..rows {
            sum.add(&memory[offset + row * stride..][..bytes]);
        }
    }
    sum.value()
}

/// Codes pictures in NV12.
pub(crate) struct CodedPlayer<'a> {
    driver: &'a mut VideoClient,
    stream: u32,
    size: Size,
    input: Resource,
    output: Resource,
    /// The request for the next unit.
    waiting: Option<ChainId>,
    pub(crate) units: Vec<Vec<u8>>,
    pub(crate) timestamps: Vec<u64>,
    pub(crate) keys: Vec<bool>,
}

impl<'a> CodedPlayer<'a> {
    pub(crate) fn new(driver: &'a mut VideoClient, stream: u32, coded: u32, size: Size) -> Self {
        assert_eq!(driver.create(stream, coded).unwrap(), OK);
        let nv12 = driver.draft().raw(NV12);
        let mut params = Params::new(INPUT, nv12, size.width, size.height);
        params.0[10] = 25;
        assert_eq!(driver.set_params(stream, &params).unwrap(), OK);
        let mut params = Params::new(OUTPUT, coded, size.width, size.height);
        params.0[12] = CODED;
        params.0[10] = 25;
        assert_eq!(driver.set_params(stream, &params).unwrap(), OK);
        // BITRATE
        let set = driver.command(0x10c, stream, &[1, 0, 1_500_000, 0]);
        assert_eq!(set.unwrap(), OK);
        let answer = driver.ask(0x10b, stream, &[1, 0]).unwrap();
        assert_eq!((word(&answer, 0), word(&answer, 8)), (0x205, 1_500_000));
        let bytes = driver.params(stream, INPUT).unwrap().plane(0).0;
        let (input, output) = (Resource::new(driver, bytes), Resource::new(driver, CODED));
        assert_eq!(driver.attach(stream, INPUT, 1, &[&input.runs]).unwrap(), OK);
        assert_eq!(
            driver.attach(stream, OUTPUT, 1, &[&output.runs]).unwrap(),
            OK
        );
        Self {
            driver,
            stream,
            size,
            input,
            output,
            waiting: None,
            units: Vec::new(),
            timestamps: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// Gives a control a value.
    pub(crate) fn control(&mut self, control: u32, value: u32) {
        let set = self
            .driver
            .command(0x10c, self.stream, &[control, 0, value, 0]);
        assert_eq!(set.unwrap(), OK);
    }

    /// Codes pictures (NV12 without padding), one of them as a key picture.
    pub(crate) fn encode(&mut self, raw: &[Vec<u8>], key: Option<usize>) {
        assert_eq!(self.size.width % 16, 0, "rows without padding");
        let mut waiting = self.driver.queue(self.stream, OUTPUT, 1, 0, 0).unwrap();
        let mut ended = false;
        for (number, picture) in raw.iter().enumerate() {
            if key == Some(number) {
                let set = self.driver.command(0x10c, self.stream, &[4, 0, 1, 0]);
                assert_eq!(set.unwrap(), OK);
            }
            self.input.write(self.driver, picture);
            let bytes = u32::try_from(picture.len()).unwrap();
            let queued = self
                .driver
                .queue(self.stream, INPUT, 1, 40 * number as u64, bytes);
            let queued = queued.unwrap();
            let mut taken = false;
            while !taken {
                let (chain, bytes) = self.driver.next(Deadline::after(PATIENCE)).unwrap();
                if chain == queued {
                    taken = true;
                } else {
                    assert_eq!(chain, waiting);
                    (waiting, ended) = self.keep(&bytes);
                }
            }
        }
        assert_eq!(self.driver.drain(self.stream).unwrap(), OK);
        while !ended {
            let (_, bytes) = self.driver.next(Deadline::after(PATIENCE)).unwrap();
            (waiting, ended) = self.keep(&bytes);
        }
        self.waiting = Some(waiting);
    }

    fn keep(&mut self, bytes: &[u8]) -> (ChainId, bool) {
        let answer = done(bytes);
        assert_eq!(answer.kind, DONE);
        let ended = answer.flags & EOS != 0;
        if !ended {
            let memory = self.output.read(self.driver);
            self.units.push(memory[..answer.sizes[0] as usize].to_vec());
            self.timestamps.push(answer.timestamp);
            self.keys.push(answer.flags & KEY != 0);
        }
        let again = self.driver.queue(self.stream, OUTPUT, 1, 0, 0).unwrap();
        (again, ended)
    }

    pub(crate) fn close(self) {
        assert_eq!(self.driver.destroy(self.stream).unwrap(), OK);
        if let Some(waiting) = self.waiting {
            self.driver.finish(waiting).unwrap();
        }
        self.input.free(self.driver);
        self.output.free(self.driver);
    }
}
