// SPDX-License-Identifier: Apache-2.0

//! Knobs, from both sides.

use frontend::Deadline;
use frontend::clients::snd::wire::{self, event, request, status};
use frontend::clients::snd::{EVENT, SndClient};

use crate::support::Card;

const VOLUME: u32 = 0;
const SWITCH: u32 = 1;
const SOURCE: u32 = 6;

fn write(client: &mut SndClient, control: u32, value: u32) -> u32 {
    client.ctl_write(control, &value.to_le_bytes()).unwrap()
}

fn events_there(client: &mut SndClient) -> usize {
    client.guest_mut().ring_mut(EVENT).pop_all().unwrap().len()
}

#[test]
fn a_write_that_changes_something_is_told_before_it_is_answered_and_no_other_is() {
    let mut card = Card::new();
    let client = card.client();
    assert_eq!(
        client.ctl_read(VOLUME, 512).unwrap()[..8],
        [100, 0, 0, 0, 0, 0, 0, 0]
    );
    for (control, value, changes) in [
        (VOLUME, 42, 1),
        (VOLUME, 42, 0),
        (SWITCH, 0, 1),
        (SWITCH, 0, 0),
        (SOURCE, 1, 1),
    ] {
        assert_eq!(write(client, control, value), status::OK);
        // The answer is here, so the notification must be.
        assert_eq!(events_there(client), changes, "element {control}");
        assert_eq!(client.ctl_read(control, 4).unwrap(), value.to_le_bytes());
    }
}

#[test]
fn values_out_of_range_change_nothing() {
    let mut card = Card::new();
    let client = card.client();
    for (control, value) in [
        (VOLUME, 101),
        (VOLUME, u32::MAX),
        (SWITCH, 2),
        (SOURCE, 2),
        (7, 0),
    ] {
        assert_eq!(
            write(client, control, value),
            status::BAD_MSG,
            "{control} {value}"
        );
    }
    assert_eq!(events_there(client), 0);
    assert_eq!(client.ctl_read(VOLUME, 4).unwrap(), [100, 0, 0, 0]);
    let short = client
        .control(&wire::ctl(request::CTL_WRITE, VOLUME, &[1, 0, 0]), 0)
        .unwrap();
    assert_eq!(short.status, status::BAD_MSG);
}

#[test]
fn a_scale_is_read_whole_or_as_far_as_there_is_room() {
    let mut card = Card::new();
    let client = card.client();
    let ask = wire::ctl(request::CTL_TLV_READ, VOLUME, &[]);
    let whole = client.control(&ask, 64).unwrap();
    assert_eq!((whole.status, whole.body.len()), (status::OK, 16));
    let part = client.control(&ask, 8).unwrap();
    assert_eq!(
        (part.status, &part.body[..]),
        (status::OK, &whole.body[..8])
    );
    for code in [
        request::CTL_TLV_READ,
        request::CTL_TLV_WRITE,
        request::CTL_TLV_COMMAND,
    ] {
        let reply = client
            .control(&wire::ctl(code, SWITCH, &[0; 8]), 8)
            .unwrap();
        assert_eq!(reply.status, status::NOT_SUPP, "{code:#x}");
    }
}

#[test]
fn an_enumeration_names_its_items() {
    let mut card = Card::new();
    let client = card.client();
    let items = client
        .control(&wire::ctl(request::CTL_ENUM_ITEMS, SOURCE, &[]), 128)
        .unwrap();
    assert_eq!(items.status, status::OK);
    assert_eq!(&items.body[..11], b"Microphone\0");
    assert_eq!(&items.body[64..69], b"Tone\0");
    let none = client
        .control(&wire::ctl(request::CTL_ENUM_ITEMS, VOLUME, &[]), 128)
        .unwrap();
    assert_eq!(none.status, status::NOT_SUPP);
}

#[test]
fn the_guest_hears_of_what_the_host_turns_plugs_and_pulls() {
    let mut card = Card::new();
    card.panel.stream(0).unwrap().set_volume(7);
    card.panel.host_turned();
    let told = card.client().event(Deadline::patient()).unwrap();
    assert_eq!(
        (told.code, told.data),
        (event::CTL_NOTIFY, VOLUME | 1 << 16)
    );
    assert_eq!(card.client().ctl_read(VOLUME, 4).unwrap(), [7, 0, 0, 0]);
    for (connected, code) in [
        (true, event::JACK_CONNECTED),
        (false, event::JACK_DISCONNECTED),
    ] {
        card.panel.set_jack(0, connected);
        card.panel.host_turned();
        let told = card.client().event(Deadline::patient()).unwrap();
        assert_eq!((told.code, told.data), (code, 0));
        assert_eq!(
            card.client().jack_info(0..1).unwrap()[0].connected,
            connected
        );
    }
}

#[test]
fn events_wait_for_buffers_and_say_the_newest() {
    let mut card = Card::new();
    // Sixteen buffers are there; the guest gives none back, and forty changes come.
    for value in 1..=20 {
        assert_eq!(write(card.client(), VOLUME, value), status::OK);
        assert_eq!(write(card.client(), SWITCH, value % 2), status::OK);
    }
    card.panel.set_jack(0, true);
    card.panel.host_turned();
    // The wake-up is handled before this answer, or its event comes with the buffers.
    card.client().jack_info(0..1).unwrap();
    let early = events_there(card.client());
    assert_eq!(early, 16);
    card.client().fill_events(8).unwrap();
    card.client()
        .guest_mut()
        .ring_mut(EVENT)
        .kick_always()
        .unwrap();
    let mut late = Vec::new();
    while late.len() < 3 {
        let completion = card
            .client()
            .guest_mut()
            .ring_mut(EVENT)
            .wait(Deadline::patient())
            .unwrap();
        late.push(completion);
    }
    assert_eq!(
        events_there(card.client()),
        0,
        "one for each of two elements and a jack"
    );
}
