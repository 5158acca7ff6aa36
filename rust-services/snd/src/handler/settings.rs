// SPDX-License-Identifier: Apache-2.0

//! What outlives the service: the state of every stream and the place of every knob.
//!
//! It is saved before the request that changed it is answered, so that a service that takes over
//! never knows less than the guest does.

use virtio_device::Record;
use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{AT_ONCE, SoundHandler};
use crate::backend::Role;
use crate::events::Notice;
use crate::format::{Format, Params, Rate};
use crate::model::PcmState;
use crate::panel::StreamPanel;
use crate::stream::Stream;

/// Changes when the layout does: what another release saved is not taken over.
const LAYOUT: u32 = 1;

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    layout: U32,
    streams: U32,
    jacks: U32,
    restarts: U32,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct SavedStream {
    state: u8,
    format: u8,
    rate: u8,
    channels: u8,
    buffer_bytes: U32,
    period_bytes: U32,
    features: U32,
    xruns: U64,
    volume: U32,
    source: U32,
    priority: U32,
    duck_level: I32,
    duck: I32,
    mute: u8,
    role: u8,
    padding: [u8; 2],
}

impl SavedStream {
    fn of(stream: &Stream, knobs: &StreamPanel) -> Self {
        let params = stream.state().params();
        let word = |word: u32| U32::new(word);
        Self {
            state: stream.state().number(),
            format: params.map_or(0, |params| params.format as u8),
            rate: params.map_or(0, |params| params.rate.number()),
            channels: params.map_or(0, |params| params.channels),
            buffer_bytes: word(params.map_or(0, |params| params.buffer_bytes)),
            period_bytes: word(params.map_or(0, |params| params.period_bytes)),
            features: word(params.map_or(0, |params| params.features)),
            xruns: U64::new(stream.xruns()),
            volume: word(knobs.volume()),
            source: word(knobs.source()),
            priority: word(knobs.priority()),
            duck_level: I32::new(knobs.duck_level()),
            duck: I32::new(knobs.duck()),
            mute: u8::from(knobs.mute()),
            role: knobs.role() as u8,
            padding: [0; 2],
        }
    }

    fn state(&self) -> Option<PcmState> {
        let params = match (Format::from_wire(self.format), Rate::from_wire(self.rate)) {
            (Some(format), Some(rate)) if self.channels > 0 => Some(Params {
                format,
                rate,
                channels: self.channels,
                buffer_bytes: self.buffer_bytes.get(),
                period_bytes: self.period_bytes.get(),
                features: self.features.get(),
            }),
            _ => None,
        };
        PcmState::from_number(self.state, params)
    }

    fn turn_knobs(&self, knobs: &StreamPanel) {
        knobs.set_volume(self.volume.get());
        knobs.set_source(self.source.get());
        knobs.set_priority(self.priority.get());
        knobs.set_duck_level(self.duck_level.get());
        knobs.set_duck(self.duck.get());
        knobs.set_mute(self.mute != 0);
        knobs.set_role(
            Role::ALL
                .get(usize::from(self.role))
                .copied()
                .unwrap_or_default(),
        );
    }
}

impl SoundHandler {
    /// Saves everything.
    pub(super) fn save(&self, record: &Record) {
        let count = |n: usize| U32::new(u32::try_from(n).unwrap_or(u32::MAX));
        let head = Head {
            layout: U32::new(LAYOUT),
            streams: count(self.streams.len()),
            jacks: count(self.jacks.len()),
            restarts: U32::new(self.panel.restarts()),
        };
        let mut bytes = head.as_bytes().to_vec();
        for (stream, knobs) in self.streams.iter().zip(self.panel.streams()) {
            bytes.extend_from_slice(SavedStream::of(stream, knobs).as_bytes());
        }
        bytes.extend((0..self.jacks.len()).map(|index| u8::from(self.panel.jack(index))));
        if let Err(error) = record.save_settings(&bytes) {
            log::error!("the sound of a successor of this service will begin anew: {error}");
        }
    }

    /// Takes over what a former process saved: its knobs, and where `recovered` its streams too.
    pub(super) fn restore(&mut self, record: &Record, recovered: bool, now: u64) {
        if let Some(bytes) = record.settings() {
            if self.restore_from(&bytes, recovered, now).is_none() {
                log::warn!(
                    "what a former process saved is of another configuration: not taken over"
                );
            }
        }
        self.take_panel_for_told();
        self.regain(AT_ONCE);
        self.save(record);
    }

    /// A driver that comes asks for every value: it knows the panel as it is now.
    fn take_panel_for_told(&mut self) {
        for (control, told) in self.controls.iter().zip(self.told_values.iter_mut()) {
            *told = control.read(&self.panel);
            if control.is_source() {
                if let Some(stream) = self.streams.get_mut(control.stream()) {
                    stream.select(*told);
                }
            }
        }
        for (index, told) in self.told_jacks.iter_mut().enumerate() {
            *told = self.panel.jack(index);
        }
    }

    fn restore_from(&mut self, bytes: &[u8], recovered: bool, now: u64) -> Option<()> {
        let (head, rest) = Head::read_from_prefix(bytes).ok()?;
        let same = head.layout.get() == LAYOUT
            && usize::try_from(head.streams.get()) == Ok(self.streams.len())
            && usize::try_from(head.jacks.get()) == Ok(self.jacks.len());
        let saved = <[SavedStream]>::ref_from_prefix_with_elems(rest, self.streams.len());
        let (saved, jacks) = saved.ok().filter(|_| same)?;
        for (saved, knobs) in saved.iter().zip(self.panel.streams()) {
            saved.turn_knobs(knobs);
        }
        for (index, connected) in jacks.iter().enumerate() {
            self.panel.set_jack(index, *connected != 0);
        }
        if !recovered {
            return Some(());
        }
        self.panel
            .set_restarts(head.restarts.get().saturating_add(1));
        for (stream, saved) in self.streams.iter_mut().zip(saved) {
            stream.recover(saved.state().unwrap_or_default(), saved.xruns.get(), now);
        }
        // What the former process still had to say is not known: say everything once more.
        for index in (0..).take(self.jacks.len()) {
            self.events.add(Notice::Jack(index));
        }
        for index in (0..).take(self.controls.len()) {
            self.events.add(Notice::Control(index));
        }
        Some(())
    }
}
