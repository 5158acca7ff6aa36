// SPDX-License-Identifier: Apache-2.0

//! A table of controls and their values, as V4L2 lets them be asked for and set.

use std::sync::Arc;

use rustix::io::Errno;
use zerocopy::{FromZeros, IntoBytes};

use crate::outbox::{Outbox, Session};
use crate::payload::{Answer, Input, change};
use crate::v4l2::control::{
    Control, ExtControl, ExtControls, NEXT_COMPOUND, NEXT_CTRL, QueryCtrl, QueryExtCtrl, QueryMenu,
    WHICH_DEFAULT, WHICH_REQUEST,
};
use crate::v4l2::event::{ALLOW_FEEDBACK, CHANGED_FLAGS, CHANGED_VALUE, CTRL, CtrlChange};
use crate::v4l2::name::name;
use crate::v4l2::{Event, EventSubscription, Ioctl};

/// Controls in one request, at most.
const MAX_AT_ONCE: u32 = 64;
const READ_ONLY: u32 = 0x4;
const WRITE_ONLY: u32 = 0x40;
const SLIDER: u32 = 0x20;
const VOLATILE: u32 = 0x80;

/// What values a control has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The heading of a class.
    Class,
    /// A number: least, greatest, and the step between.
    Integer(i32, i32, i32),
    /// Yes or no.
    Boolean,
    /// One of these; a place that holds nothing cannot be chosen.
    Menu(&'static [&'static str]),
    /// Done when it is set to anything.
    Button,
}

/// What a control is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spec {
    /// V4L2_CID_*.
    pub id: u32,
    /// For people.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// Its value at first.
    pub default: i32,
    /// Whether the device alone sets it.
    pub read_only: bool,
}

impl Spec {
    /// The heading of a class.
    #[must_use]
    pub const fn class(id: u32, name: &'static str) -> Self {
        let (kind, default, read_only) = (Kind::Class, 0, true);
        Self {
            id,
            name,
            kind,
            default,
            read_only,
        }
    }

    /// A control that the driver may set.
    #[must_use]
    pub const fn new(id: u32, name: &'static str, kind: Kind, default: i32) -> Self {
        Self {
            id,
            name,
            kind,
            default,
            read_only: false,
        }
    }

    fn type_(&self) -> u32 {
        match self.kind {
            Kind::Integer(..) => 1,
            Kind::Boolean => 2,
            Kind::Menu(_) => 3,
            Kind::Button => 4,
            Kind::Class => 6,
        }
    }

    fn flags(&self) -> u32 {
        match (self.kind, self.read_only) {
            (Kind::Class, _) => READ_ONLY | WRITE_ONLY,
            (Kind::Button, _) => WRITE_ONLY,
            (Kind::Integer(..), true) => READ_ONLY | VOLATILE,
            (_, true) => READ_ONLY,
            (Kind::Integer(..), false) => SLIDER,
            _ => 0,
        }
    }

    fn range(&self) -> (i32, i32, i32) {
        match self.kind {
            Kind::Integer(least, greatest, step) => (least, greatest, step),
            Kind::Boolean => (0, 1, 1),
            Kind::Menu(names) => {
                let last = names.len().saturating_sub(1);
                (0, i32::try_from(last).unwrap_or(0), 1)
            }
            Kind::Class | Kind::Button => (0, 0, 0),
        }
    }

    /// The value nearest to what is wished.
    fn admit(&self, wished: i64) -> Result<i32, Errno> {
        let (least, greatest, step) = self.range();
        let value = i32::try_from(wished.clamp(least.into(), greatest.into())).unwrap_or(least);
        match self.kind {
            Kind::Integer(..) => {
                let step = i64::from(step.max(1));
                let above = i64::from(value).saturating_sub(least.into());
                let rounded = above
                    .saturating_add(step.wrapping_div(2))
                    .checked_div(step)
                    .unwrap_or(0);
                let value = i64::from(least).saturating_add(rounded.saturating_mul(step));
                Ok(i32::try_from(value).unwrap_or(greatest).min(greatest))
            }
            Kind::Boolean => Ok(i32::from(wished != 0)),
            // A wrong choice is none: the nearest one would be another meaning.
            Kind::Menu(names) => {
                let chosen = usize::try_from(wished).ok().and_then(|at| names.get(at));
                match chosen {
                    Some(name) if !name.is_empty() => Ok(value),
                    Some(_) => Err(Errno::INVAL),
                    None => Err(Errno::RANGE),
                }
            }
            Kind::Class | Kind::Button => Ok(0),
        }
    }
}

/// Whether the place of a control that cannot be is told.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Wrong {
    Told,
    Kept,
}

/// Which class a control is of.
fn class_of(id: u32) -> u32 {
    id & 0x0fff_0000
}

/// Controls and how they stand.
#[derive(Clone, Debug)]
pub struct Controls {
    /// In the order of their ids.
    specs: Arc<[Spec]>,
    values: Vec<i32>,
}

impl Controls {
    /// All at their first values. In the order of their ids.
    #[must_use]
    pub fn new(specs: &[Spec]) -> Self {
        Self {
            values: specs.iter().map(|spec| spec.default).collect(),
            specs: specs.into(),
        }
    }

    fn find(&self, id: u32) -> Result<(usize, Spec), Errno> {
        let at = self.specs.binary_search_by_key(&id, |spec| spec.id);
        at.ok()
            .and_then(|at| Some((at, *self.specs.get(at)?)))
            .ok_or(Errno::INVAL)
    }

    /// The value of a control; 0 where there is no such one.
    #[must_use]
    pub fn value(&self, id: u32) -> i32 {
        let found = self.find(id).ok();
        found
            .and_then(|(at, _)| self.values.get(at).copied())
            .unwrap_or(0)
    }

    /// Sets a control from the device's side. True if that changed it.
    pub fn put(&mut self, id: u32, value: i32) -> bool {
        let Ok((at, _)) = self.find(id) else {
            return false;
        };
        let place = self.values.get_mut(at);
        place.is_some_and(|place| std::mem::replace(place, value) != value)
    }

    /// All values that are not the first ones, to be saved.
    pub fn changed(&self) -> impl Iterator<Item = (u32, i32)> + '_ {
        let all = self.specs.iter().zip(&self.values);
        all.filter(|(spec, value)| spec.default != **value)
            .map(|(spec, value)| (spec.id, *value))
    }

    /// Whether there is such a control.
    #[must_use]
    pub fn has(&self, id: u32) -> bool {
        self.find(id).is_ok()
    }

    /// QUERY_EXT_CTRL.
    ///
    /// # Errors
    /// EINVAL where there is none, or none behind it.
    pub fn query_ext(&self, query: &mut QueryExtCtrl) -> Result<(), Errno> {
        let asked = query.id & !(NEXT_CTRL | NEXT_COMPOUND);
        let spec = if query.id & NEXT_CTRL != 0 {
            let next = self.specs.iter().find(|spec| spec.id > asked);
            *next.ok_or(Errno::INVAL)?
        } else if query.id & NEXT_COMPOUND != 0 {
            // None has a payload of its own.
            return Err(Errno::INVAL);
        } else {
            self.find(asked)?.1
        };
        let (least, greatest, step) = spec.range();
        *query = QueryExtCtrl::new_zeroed();
        query.id = spec.id;
        query.type_ = spec.type_();
        query.name = name(spec.name);
        query.minimum = least.into();
        query.maximum = greatest.into();
        query.step = u64::from(step.unsigned_abs());
        query.default = spec.default.into();
        query.flags = spec.flags();
        query.elem_size = 4;
        query.elems = 1;
        if matches!(spec.kind, Kind::Class) {
            (query.elem_size, query.elems) = (0, 0);
        }
        Ok(())
    }

    /// QUERYCTRL.
    ///
    /// # Errors
    /// As [`Controls::query_ext`].
    pub fn query(&self, query: &mut QueryCtrl) -> Result<(), Errno> {
        let mut long = QueryExtCtrl::new_zeroed();
        long.id = query.id & !NEXT_COMPOUND;
        self.query_ext(&mut long)?;
        let short = |value: i64| i32::try_from(value).unwrap_or(0);
        query.id = long.id;
        query.type_ = long.type_;
        query.name = long.name;
        query.minimum = short(long.minimum);
        query.maximum = short(long.maximum);
        query.step = i32::try_from(long.step).unwrap_or(0);
        query.default = short(long.default);
        query.flags = long.flags;
        query.reserved = [0; 2];
        Ok(())
    }

    /// QUERYMENU.
    ///
    /// # Errors
    /// EINVAL for what is no menu, or no place of it.
    pub fn query_menu(&self, query: &mut QueryMenu) -> Result<(), Errno> {
        let (_, spec) = self.find(query.id)?;
        let Kind::Menu(names) = spec.kind else {
            return Err(Errno::INVAL);
        };
        let index = usize::try_from(query.index).unwrap_or(usize::MAX);
        let chosen = names.get(index).filter(|name| !name.is_empty());
        query.name = name(chosen.ok_or(Errno::INVAL)?);
        query.reserved = 0;
        Ok(())
    }

    /// G_CTRL.
    ///
    /// # Errors
    /// EINVAL where there is none, EACCES for one that cannot be read.
    pub fn get(&self, control: &mut Control) -> Result<(), Errno> {
        control.value = self.read(control.id, false)?;
        Ok(())
    }

    fn read(&self, id: u32, default: bool) -> Result<i32, Errno> {
        let (at, spec) = self.find(id)?;
        if default {
            return Ok(spec.default);
        }
        if spec.flags() & WRITE_ONLY != 0 {
            return Err(Errno::ACCESS);
        }
        self.values.get(at).copied().ok_or(Errno::INVAL)
    }

    fn writable(&self, id: u32) -> Result<(usize, Spec), Errno> {
        let (at, spec) = self.find(id)?;
        if spec.flags() & READ_ONLY != 0 {
            return Err(Errno::ACCESS);
        }
        Ok((at, spec))
    }

    /// S_CTRL. The control is told as it was set; says whether that changed it, or pressed it.
    ///
    /// # Errors
    /// EINVAL where there is none, EACCES for one that cannot be set, ERANGE for a wrong choice.
    pub fn set(&mut self, control: &mut Control) -> Result<bool, Errno> {
        let (at, spec) = self.writable(control.id)?;
        control.value = spec.admit(control.value.into())?;
        Ok(self.store(at, control.value))
    }

    fn store(&mut self, at: usize, value: i32) -> bool {
        if self
            .specs
            .get(at)
            .is_some_and(|spec| spec.kind == Kind::Button)
        {
            return true;
        }
        let place = self.values.get_mut(at);
        place.is_some_and(|place| std::mem::replace(place, value) != value)
    }

    /// What a session is told of a control that has changed, or that it asks for.
    #[must_use]
    pub fn event(&self, id: u32, changes: u32) -> Option<Event> {
        let (at, spec) = self.find(id).ok()?;
        if matches!(spec.kind, Kind::Class) {
            return None;
        }
        let (minimum, maximum, step) = spec.range();
        let change = CtrlChange {
            changes,
            type_: spec.type_(),
            value: self.values.get(at).copied()?.into(),
            flags: spec.flags(),
            minimum,
            maximum,
            step,
            default: spec.default,
            padding: 0,
        };
        Some(Event::new(CTRL, id, change.as_bytes()))
    }

    /// Runs an ioctl about controls; `None` for others. Calls `changed` with each control that is
    /// another than before, and with each button.
    pub fn run(
        &mut self,
        ioctl: Ioctl,
        input: Input<'_>,
        mut changed: impl FnMut(&Self, u32),
    ) -> Option<Answer> {
        Some(match ioctl {
            Ioctl::GExtCtrls => self.get_all(input),
            Ioctl::TryExtCtrls => self.try_all(input),
            Ioctl::SExtCtrls => self.set_all(input, changed),
            Ioctl::QueryCtrl => change(input, |query| self.query(query)).into(),
            Ioctl::QueryExtCtrl => change(input, |query| self.query_ext(query)).into(),
            Ioctl::QueryMenu => change(input, |query| self.query_menu(query)).into(),
            Ioctl::GCtrl => change(input, |control| self.get(control)).into(),
            Ioctl::SCtrl => change(input, |control| {
                if self.set(control)? {
                    changed(self, control.id);
                }
                Ok(())
            })
            .into(),
            _ => return None,
        })
    }

    /// A session wants to hear of a control.
    ///
    /// # Errors
    /// EINVAL where there is no such control, or of events that are about something else; ENOMEM
    /// for too many wishes.
    pub fn subscribe(
        &self,
        session: Session,
        wish: &EventSubscription,
        outbox: &mut Outbox,
    ) -> Result<(), Errno> {
        if wish.type_ != CTRL || !self.has(wish.id) {
            return Err(Errno::INVAL);
        }
        if outbox.subscribe(session, wish)? {
            // Everything is new to who asks for the first time.
            if let Some(event) = self.event(wish.id, CHANGED_VALUE | CHANGED_FLAGS) {
                outbox.event(session, &event);
            }
        }
        Ok(())
    }

    /// Tells who wants to hear of it that `by` has changed a control.
    pub fn tell(&self, id: u32, by: Session, outbox: &mut Outbox) {
        let Some(event) = self.event(id, CHANGED_VALUE) else {
            return;
        };
        for (listener, flags) in outbox.listeners(CTRL, id) {
            if listener != by || flags & ALLOW_FEEDBACK != 0 {
                outbox.event(listener, &event);
            }
        }
    }

    /// G_EXT_CTRLS.
    #[must_use]
    pub fn get_all(&self, input: Input<'_>) -> Answer {
        self.with_list(input, Wrong::Told, |head, list| {
            let default = head.which == WHICH_DEFAULT;
            for control in list {
                let value = self.read(control.id, default);
                control.value = value.map_err(|error| (error, usize::MAX))?.into();
            }
            Ok(())
        })
    }

    /// S_EXT_CTRLS: all or none. Calls `changed` with each one that is another than before.
    #[must_use]
    pub fn set_all(&mut self, input: Input<'_>, mut changed: impl FnMut(&Self, u32)) -> Answer {
        let mut stored = Vec::new();
        // Which one is wrong is for TRY to tell.
        let answer = self.with_list(input, Wrong::Kept, |head, list| {
            if head.which == WHICH_DEFAULT {
                return Err((Errno::INVAL, usize::MAX));
            }
            for control in list {
                let set = self.writable(control.id).and_then(|(at, spec)| {
                    control.value = spec.admit(control.value)?.into();
                    Ok((at, control.id, spec.admit(control.value)?))
                });
                stored.push(set.map_err(|error| (error, usize::MAX))?);
            }
            Ok(())
        });
        if answer.error.is_none() {
            for (at, id, value) in stored {
                if self.store(at, value) {
                    changed(self, id);
                }
            }
        }
        answer
    }

    /// TRY_EXT_CTRLS.
    #[must_use]
    pub fn try_all(&self, input: Input<'_>) -> Answer {
        self.with_list(input, Wrong::Told, |head, list| {
            if head.which == WHICH_DEFAULT {
                return Err((Errno::INVAL, usize::MAX));
            }
            for (at, control) in list.iter_mut().enumerate() {
                let tried = self
                    .writable(control.id)
                    .and_then(|(_, spec)| spec.admit(control.value));
                control.value = tried.map_err(|error| (error, at))?.into();
            }
            Ok(())
        })
    }

    /// Takes a list of controls, lets `run` work on it, and tells it back with the place of what is
    /// wrong; `usize::MAX` for the list as a whole.
    fn with_list(
        &self,
        mut input: Input<'_>,
        wrong: Wrong,
        run: impl FnOnce(&ExtControls, &mut [ExtControl]) -> Result<(), (Errno, usize)>,
    ) -> Answer {
        let mut head: ExtControls = match input.take() {
            Ok(head) => head,
            Err(error) => return error.into(),
        };
        if head.count > MAX_AT_ONCE {
            head.error_idx = head.count;
            return Answer::with(&head).but(Some(Errno::NOMEM));
        }
        let count = usize::try_from(head.count).unwrap_or(0);
        let mut list: Vec<ExtControl> = match input.take_all(count) {
            Ok(list) => list,
            Err(error) => return error.into(),
        };
        let result = self
            .admit_list(&head, &list)
            .and_then(|()| run(&head, &mut list));
        let error = result.err();
        head.error_idx = match error {
            Some((_, at)) if at < count && wrong == Wrong::Told => {
                u32::try_from(at).unwrap_or(head.count)
            }
            _ => head.count,
        };
        let answer = list
            .iter()
            .fold(Answer::with(&head), |answer, control| answer.and(control));
        answer.but(error.map(|(error, _)| error))
    }

    /// Whether all controls exist and are of the class that is asked for.
    fn admit_list(&self, head: &ExtControls, list: &[ExtControl]) -> Result<(), (Errno, usize)> {
        let whole = (Errno::INVAL, usize::MAX);
        let class = match head.which {
            0 | WHICH_DEFAULT => None,
            WHICH_REQUEST => return Err((Errno::ACCESS, usize::MAX)),
            class => Some(class),
        };
        if list.is_empty() {
            let mut ids = self.specs.iter().map(|spec| class_of(spec.id));
            let known = class.map_or(!self.specs.is_empty(), |class| ids.any(|id| id == class));
            return if known { Ok(()) } else { Err(whole) };
        }
        for (at, control) in list.iter().enumerate() {
            let wrong_class = class.is_some_and(|class| class_of(control.id) != class);
            if wrong_class || self.find(control.id).is_err() {
                return Err((Errno::INVAL, at));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: [Spec; 4] = [
        Spec::class(0x98_0001, "User Controls"),
        Spec::new(0x98_0900, "Brightness", Kind::Integer(0, 255, 5), 125),
        Spec::new(0x98_0914, "Flip", Kind::Boolean, 0),
        Spec::new(0x9f_0903, "Pattern", Kind::Menu(&["Bars", "", "Grey"]), 0),
    ];

    fn list(which: u32, controls: &[(u32, i64)]) -> Vec<u8> {
        let mut head = ExtControls::new_zeroed();
        (head.which, head.pointer) = (which, 0x1234);
        head.count = u32::try_from(controls.len()).unwrap();
        let mut bytes = head.as_bytes().to_vec();
        for &(id, value) in controls {
            let (size, reserved) = (0, 0);
            let control = ExtControl {
                id,
                size,
                reserved,
                value,
            };
            bytes.extend_from_slice(control.as_bytes());
        }
        bytes
    }

    fn error_at(answer: &Answer) -> (Option<Errno>, u32) {
        let mut input = Input::new(&answer.payload);
        (answer.error, input.take::<ExtControls>().unwrap().error_idx)
    }

    #[test]
    fn controls_are_found_one_after_the_other() {
        let controls = Controls::new(&SPECS);
        let mut query = QueryExtCtrl::new_zeroed();
        let mut ids = Vec::new();
        while {
            query.id |= NEXT_CTRL;
            controls.query_ext(&mut query).is_ok()
        } {
            ids.push(query.id);
        }
        assert_eq!(ids, SPECS.map(|spec| spec.id));
    }

    #[test]
    fn a_value_becomes_the_nearest_that_can_be() {
        let mut controls = Controls::new(&SPECS);
        let mut set = |id, value| {
            let mut control = Control { id, value };
            controls
                .set(&mut control)
                .map(|changed| (control.value, changed))
        };
        assert_eq!(set(0x98_0900, 1000), Ok((255, true)));
        assert_eq!(set(0x98_0900, i32::MIN), Ok((0, true)));
        assert_eq!(set(0x98_0900, 13), Ok((15, true)));
        assert_eq!(set(0x98_0900, 12), Ok((10, true)));
        assert_eq!(set(0x98_0914, 7), Ok((1, true)));
        assert_eq!(set(0x98_0914, 1), Ok((1, false)));
        assert_eq!(set(0x9f_0903, 2), Ok((2, true)));
        assert_eq!(set(0x9f_0903, 1), Err(Errno::INVAL));
        assert_eq!(set(0x9f_0903, 3), Err(Errno::RANGE));
        assert_eq!(set(0x98_0001, 0), Err(Errno::ACCESS));
        assert_eq!(set(1, 0), Err(Errno::INVAL));
    }

    #[test]
    fn a_list_is_set_whole_or_not_at_all() {
        let mut controls = Controls::new(&SPECS);
        let mut told = Vec::new();
        let wrong = list(0, &[(0x98_0900, 50), (0x9f_0903, 1)]);
        let answer = controls.set_all(Input::new(&wrong), |_, id| told.push(id));
        assert_eq!(error_at(&answer), (Some(Errno::INVAL), 2));
        assert_eq!(controls.value(0x98_0900), 125);
        let answer = controls.try_all(Input::new(&wrong));
        assert_eq!(error_at(&answer), (Some(Errno::INVAL), 1));
        let right = list(0, &[(0x98_0900, 50), (0x9f_0903, 0)]);
        let answer = controls.set_all(Input::new(&right), |_, id| told.push(id));
        assert_eq!(error_at(&answer), (None, 2));
        assert_eq!((controls.value(0x98_0900), told), (50, vec![0x98_0900]));
    }

    #[test]
    fn classes_do_not_mix() {
        let controls = Controls::new(&SPECS);
        let mixed = list(0x98_0000, &[(0x98_0900, 0), (0x9f_0903, 0)]);
        assert_eq!(
            error_at(&controls.get_all(Input::new(&mixed))),
            (Some(Errno::INVAL), 1)
        );
        let none = list(0xaa_0000, &[]);
        assert_eq!(
            error_at(&controls.get_all(Input::new(&none))),
            (Some(Errno::INVAL), 0)
        );
        let some = list(0x98_0000, &[]);
        assert_eq!(error_at(&controls.get_all(Input::new(&some))), (None, 0));
    }
}
