// SPDX-License-Identifier: Apache-2.0

//! Requests of the control queue, except those that move a stream.

use virtio_device::{Chain, Io};
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes};

use super::SoundHandler;
use crate::controls::Control;
use crate::events::Notice;
use crate::mixer::RAMP_MS;
use crate::wire::{
    CTL_INFO_PACKED, CTL_VALUE_BYTES, F_CTLS, ItemRequest, QueryInfo, Request, Status, access,
};

/// Largest item a driver may say it expects, in bytes: there is room for centuries of additions.
const LARGEST_ITEM: usize = 4096;
/// Bytes of the name of an item of an enumeration.
const ITEM_NAME: usize = 64;
/// Bytes of an answer's status.
const STATUS: usize = 4;
/// Bytes of a request about one item, before what follows it.
const ITEM_REQUEST: usize = 8;

/// What becomes of a request.
pub(super) enum Outcome {
    /// It is answered now; what follows the status is in `reply`.
    Answer(Status),
    /// It is answered when the queue that it concerns runs.
    Later,
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        Self::Answer(status)
    }
}

impl SoundHandler {
    /// Answers a request, now or later.
    pub(super) fn answer(&mut self, io: &mut Io, chain: Chain) {
        self.reply.clear();
        self.reply.resize(STATUS, 0);
        let mut status = match self.carry_out(io, &chain) {
            Outcome::Answer(status) => status,
            Outcome::Later => return self.deferred.push(chain),
        };
        if status == Status::Ok && chain.writable() < self.reply.len() {
            status = Status::BadMsg;
        }
        if status != Status::Ok {
            self.reply.truncate(STATUS);
        }
        if let Some(head) = self.reply.first_chunk_mut::<STATUS>() {
            *head = U32::new(status as u32).to_bytes();
        }
        let written = match chain.write(io.memory(), 0, &self.reply) {
            Ok(()) => u32::try_from(self.reply.len()).unwrap_or(u32::MAX),
            Err(_) => 0,
        };
        if status == Status::Ok && written > 0 {
            io.complete(chain, written);
        } else {
            io.fail(chain, written);
        }
    }

    fn carry_out(&mut self, io: &mut Io, chain: &Chain) -> Outcome {
        if chain.is_suspect() {
            return Status::IoErr.into();
        }
        let Ok(code) = chain.read_value::<U32>(io.memory(), 0) else {
            return Status::BadMsg.into();
        };
        let Some(request) = Request::from_wire(code.get()) else {
            return Status::NotSupp.into();
        };
        if request.is_about_controls() && io.features() & F_CTLS == 0 {
            return Status::NotSupp.into();
        }
        match request {
            Request::PcmInfo => self.pcm_info(io, chain).into(),
            Request::PcmSetParams
            | Request::PcmPrepare
            | Request::PcmRelease
            | Request::PcmStart
            | Request::PcmStop => self.move_stream(io, chain, request),
            Request::JackInfo => {
                let infos = self.jack_infos();
                describe(&mut self.reply, io, chain, &infos).into()
            }
            Request::ChmapInfo => describe(&mut self.reply, io, chain, &self.chmaps).into(),
            Request::JackRemap => self.remap(io, chain).into(),
            Request::CtlInfo => self.ctl_info(io, chain).into(),
            Request::CtlEnumItems => self.ctl_items(io, chain).into(),
            Request::CtlRead => self.ctl_read(io, chain).into(),
            Request::CtlWrite => self.ctl_write(io, chain).into(),
            Request::CtlTlvRead => self.ctl_tlv(io, chain).into(),
            // No element has these rights.
            Request::CtlTlvWrite | Request::CtlTlvCommand => Status::NotSupp.into(),
        }
    }

    fn pcm_info(&mut self, io: &Io, chain: &Chain) -> Status {
        describe(&mut self.reply, io, chain, &self.offers)
    }

    /// No jack has the feature for it.
    fn remap(&self, io: &Io, chain: &Chain) -> Status {
        match chain.read_value::<ItemRequest>(io.memory(), 0) {
            Ok(request) if item(&self.jacks, request.id).is_some() => Status::NotSupp,
            _ => Status::BadMsg,
        }
    }

    fn ctl_info(&mut self, io: &Io, chain: &Chain) -> Status {
        let Ok((range, size)) = asked(io, chain, self.controls.len()) else {
            return Status::BadMsg;
        };
        if size < CTL_INFO_PACKED {
            // The element's range would be cut off.
            return Status::BadMsg;
        }
        for control in self.controls.get(range).unwrap_or_default() {
            append(&mut self.reply, &control.info().to_bytes(size), size);
        }
        Status::Ok
    }

    fn control(&self, io: &Io, chain: &Chain) -> Option<(usize, &Control)> {
        let request = chain.read_value::<ItemRequest>(io.memory(), 0).ok()?;
        item(&self.controls, request.id)
    }

    fn ctl_items(&mut self, io: &Io, chain: &Chain) -> Status {
        let Some((_, control)) = self.control(io, chain) else {
            return Status::BadMsg;
        };
        if control.items().is_empty() {
            return Status::NotSupp;
        }
        let names: Vec<Vec<u8>> = control
            .items()
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        for mut name in names {
            name.truncate(ITEM_NAME.saturating_sub(1));
            append(&mut self.reply, &name, ITEM_NAME);
        }
        Status::Ok
    }

    fn ctl_read(&mut self, io: &Io, chain: &Chain) -> Status {
        let Some((_, control)) = self.control(io, chain) else {
            return Status::BadMsg;
        };
        let value = U32::new(control.read(&self.panel));
        append(&mut self.reply, value.as_bytes(), CTL_VALUE_BYTES);
        // A driver that knows how many members there are may leave out the rest.
        let room = chain.writable().max(STATUS.saturating_add(4));
        self.reply.truncate(room);
        Status::Ok
    }

    fn ctl_write(&mut self, io: &mut Io, chain: &Chain) -> Status {
        let Some((index, control)) = self.control(io, chain) else {
            return Status::BadMsg;
        };
        let Ok(value) = chain.read_value::<U32>(io.memory(), ITEM_REQUEST) else {
            return Status::BadMsg;
        };
        let value = value.get();
        if !control.info().range.contains(value) {
            return Status::BadMsg;
        }
        if control.read(&self.panel) == value {
            return Status::Ok;
        }
        control.write(&self.panel, value);
        let (source, stream) = (control.is_source(), control.stream());
        if let Some(told) = self.told_values.get_mut(index) {
            *told = value;
        }
        if let Some(stream) = self.streams.get_mut(stream).filter(|_| source) {
            stream.select(value);
        }
        self.regain(RAMP_MS);
        self.save(io.record());
        // Before the answer: Linux tells its mixers of a change by this only, and a mixer that
        // looks right after its write must find it.
        self.events
            .add(Notice::Control(u16::try_from(index).unwrap_or(u16::MAX)));
        self.events.send(io, &self.panel);
        Status::Ok
    }

    fn ctl_tlv(&mut self, io: &Io, chain: &Chain) -> Status {
        let Some((_, control)) = self.control(io, chain) else {
            return Status::BadMsg;
        };
        if control.info().access & access::TLV_READ == 0 {
            return Status::NotSupp;
        }
        self.reply.extend(control.metadata().unwrap_or_default());
        // As much as fits is a success.
        self.reply.truncate(chain.writable().max(STATUS));
        Status::Ok
    }
}

fn item<T>(items: &[T], id: U32) -> Option<(usize, &T)> {
    let index = usize::try_from(id.get()).ok()?;
    items.get(index).map(|item| (index, item))
}

/// Which items are asked about, and how many bytes the driver expects of each.
fn asked(io: &Io, chain: &Chain, items: usize) -> Result<(std::ops::Range<usize>, usize), Status> {
    let query = chain
        .read_value::<QueryInfo>(io.memory(), 0)
        .map_err(|_| Status::BadMsg)?;
    let number = |value: U32| usize::try_from(value.get()).map_err(|_| Status::BadMsg);
    let (start, count) = (number(query.start_id)?, number(query.count)?);
    let size = number(query.size)?;
    let end = start
        .checked_add(count)
        .filter(|end| *end <= items)
        .ok_or(Status::BadMsg)?;
    if size == 0 || size > LARGEST_ITEM {
        return Err(Status::BadMsg);
    }
    Ok((start..end, size))
}

/// Answers a `*_INFO` request: each item at the stride that the driver asks for.
fn describe<T: IntoBytes + Immutable>(
    reply: &mut Vec<u8>,
    io: &Io,
    chain: &Chain,
    items: &[T],
) -> Status {
    let Ok((range, size)) = asked(io, chain, items.len()) else {
        return Status::BadMsg;
    };
    let asked = items.get(range).unwrap_or_default();
    if size == size_of::<T>() {
        reply.extend_from_slice(asked.as_bytes());
        return Status::Ok;
    }
    for item in asked {
        append(reply, item.as_bytes(), size);
    }
    Status::Ok
}

/// Appends `size` bytes: those of an item, and zeroes where the driver's item is longer.
fn append(reply: &mut Vec<u8>, bytes: &[u8], size: usize) {
    let end = reply.len().saturating_add(size);
    reply.extend_from_slice(bytes.get(..size.min(bytes.len())).unwrap_or_default());
    reply.resize(end, 0);
}
