// SPDX-License-Identifier: Apache-2.0

use zerocopy::little_endian::{U32, U64};

use super::*;

fn params() -> Params {
    Params {
        format: Format::S16,
        rate: Rate::from_hertz(48_000).unwrap(),
        channels: 2,
        buffer_bytes: 7680,
        period_bytes: 1920,
        features: 0,
    }
}

/// Every request in every state: what comes of it, or nothing where it is refused.
#[test]
fn the_lifecycle_is_that_of_the_specification() {
    let p = params();
    let other = Params {
        channels: 1,
        period_bytes: 960,
        ..p
    };
    let states = [
        PcmState::Idle,
        PcmState::Configured(p),
        PcmState::Prepared(p),
        PcmState::Running(p),
        PcmState::Stopped(p),
        PcmState::Released(p),
    ];
    let set = PcmRequest::SetParams(other);
    let configured = |action| Some((PcmState::Configured(other), action));
    let prepared = |action| Some((PcmState::Prepared(p), action));
    let running = Some((PcmState::Running(p), Action::Start));
    let stopped = Some((PcmState::Stopped(p), Action::Stop));
    let released = Some((PcmState::Released(p), Action::Release));
    let open = prepared(Action::Open(p));
    let keep = prepared(Action::Nothing);
    let nothing = configured(Action::Nothing);
    type Row = [Option<(PcmState, Action)>; 6];
    let table: [(PcmRequest, Row); 5] = [
        // request              Idle     Configured Prepared                    Running  Stopped   Released
        (
            set,
            [
                nothing,
                nothing,
                configured(Action::Discard),
                None,
                None,
                nothing,
            ],
        ),
        (PcmRequest::Prepare, [None, open, keep, None, None, open]),
        (
            PcmRequest::Start,
            [None, None, running, None, running, None],
        ),
        (PcmRequest::Stop, [None, None, None, stopped, None, None]),
        (
            PcmRequest::Release,
            [None, None, released, None, released, None],
        ),
    ];
    for (request, row) in table {
        for (state, expected) in states.into_iter().zip(row) {
            assert_eq!(state.after(request), expected, "{request:?} in {state:?}");
            if let Some((next, _)) = expected {
                assert!(next.has_done(request), "{request:?} leads to {next:?}");
            }
        }
    }
}

#[test]
fn a_state_comes_back_from_its_number() {
    let p = params();
    for number in 0..6 {
        let state = PcmState::from_number(number, Some(p)).unwrap();
        assert_eq!(state.number(), number);
        assert_eq!(state.open().is_some(), (2..=4).contains(&number));
    }
    assert_eq!(PcmState::from_number(3, None), None);
    assert_eq!(PcmState::from_number(6, Some(p)), None);
}

fn offer() -> PcmInfo {
    PcmInfo {
        features: U32::new(feature::EVT_XRUNS),
        formats: U64::new(Format::S16.bit() | Format::ImaAdpcm.bit()),
        rates: U64::new(1 << 7),
        channels_min: 1,
        channels_max: 2,
        ..PcmInfo::default()
    }
}

fn wanted() -> SetParams {
    SetParams {
        code: U32::new(0x101),
        stream_id: U32::new(0),
        buffer_bytes: U32::new(7680),
        period_bytes: U32::new(1920),
        features: U32::new(0),
        channels: 2,
        format: Format::S16 as u8,
        rate: 7,
        padding: 0,
    }
}

#[test]
fn what_is_offered_is_taken() {
    assert_eq!(check_params(&offer(), &wanted()), Ok(params()));
}

#[test]
fn what_is_not_offered_or_not_defined_is_refused_by_the_right_word() {
    type Change = fn(&mut SetParams);
    let table: [(&str, Status, Change); 15] = [
        ("format not offered", Status::NotSupp, |w| w.format = 4),
        ("format not defined", Status::BadMsg, |w| w.format = 25),
        ("rate not offered", Status::NotSupp, |w| w.rate = 0),
        ("rate not defined", Status::BadMsg, |w| w.rate = 16),
        ("no channels", Status::BadMsg, |w| w.channels = 0),
        ("too many channels", Status::NotSupp, |w| w.channels = 3),
        ("feature not offered", Status::NotSupp, |w| {
            w.features = U32::new(1 << 2)
        }),
        ("shared memory", Status::NotSupp, |w| {
            w.features = U32::new(0b11)
        }),
        ("feature not defined", Status::BadMsg, |w| {
            w.features = U32::new(1 << 5)
        }),
        ("no period", Status::BadMsg, |w| {
            w.period_bytes = U32::new(0)
        }),
        ("no buffer", Status::BadMsg, |w| {
            w.buffer_bytes = U32::new(0)
        }),
        ("period no divider", Status::BadMsg, |w| {
            w.period_bytes = U32::new(1900)
        }),
        ("half a frame", Status::BadMsg, |w| {
            w.period_bytes = U32::new(1922);
            w.buffer_bytes = U32::new(3844);
        }),
        ("huge buffer", Status::NotSupp, |w| {
            w.buffer_bytes = U32::new(LARGEST_BUFFER + 1920)
        }),
        ("half a byte", Status::NotSupp, |w| {
            w.format = Format::ImaAdpcm as u8;
            w.channels = 1;
        }),
    ];
    for (what, status, change) in table {
        let mut set = wanted();
        change(&mut set);
        assert_eq!(check_params(&offer(), &set), Err(status), "{what}");
    }
}
