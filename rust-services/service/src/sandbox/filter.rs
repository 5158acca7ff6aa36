// SPDX-License-Identifier: Apache-2.0
//! Makes seccomp programs from the lists of system calls.

use super::syscalls::{Allowed, When};
use super::{Policy, Role, syscalls};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// What went wrong with a filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("seccomp knows no processor {0}")]
    Processor(&'static str),
    #[error("the list of system calls does not compile: {0}")]
    Compile(#[from] seccompiler::BackendError),
    #[error("the kernel refuses the filter: {0}")]
    Apply(#[from] seccompiler::Error),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs of a process, made before its first thread starts: making them allocates.
#[derive(Debug)]
pub(super) struct Filters {
    base: BpfProgram,
    base_count: usize,
    /// Says ENOSYS to clone3, whose flags cannot be looked at, so that the C library uses clone.
    no_clone3: BpfProgram,
    /// Says EACCES to openat in threads where another call that is not allowed ends the process:
    /// the C library opens files by itself. Its allocator looks at /proc/sys/vm/overcommit_memory
    /// when it first gives back much memory, and a guest decides when that is.
    no_openat: BpfProgram,
    roles: BTreeMap<Role, BpfProgram>,
}

impl Filters {
    pub(super) fn compile(policy: &Policy) -> Result<Self, FilterError> {
        let mut union = Rules::new();
        let mut roles = BTreeMap::new();
        for role in policy.roles() {
            let mut rules = rules_of(role, policy)?;
            merge(&mut union, &rules);
            if is_strict(role) {
                // Passed on to `no_openat`.
                rules.insert(libc::SYS_openat, Vec::new());
            }
            roles.insert(role, program(rules, otherwise(role))?);
        }
        if !policy.remove_files.is_empty() {
            for number in syscalls::REMOVING {
                union.insert(number, Vec::new());
            }
        }
        let base_count = union.len();
        let refused = SeccompAction::Errno(errno(libc::EPERM));
        let absent = SeccompAction::Errno(errno(libc::ENOSYS));
        Ok(Self {
            base: program(union, refused)?,
            base_count,
            no_clone3: without(libc::SYS_clone3, absent)?,
            no_openat: without(libc::SYS_openat, SeccompAction::Errno(errno(libc::EACCES)))?,
            roles,
        })
    }

    /// Restricts the calling thread, and all it will start, to what any role needs.
    pub(super) fn apply_base(&self) -> Result<(), FilterError> {
        seccompiler::apply_filter(&self.no_clone3)?;
        Ok(seccompiler::apply_filter(&self.base)?)
    }

    /// Restricts the calling thread to what its role needs.
    pub(super) fn apply(&self, role: Role) -> Result<(), FilterError> {
        match self.roles.get(&role) {
            Some(program) => {
                if is_strict(role) {
                    seccompiler::apply_filter(&self.no_openat)?;
                }
                Ok(seccompiler::apply_filter(program)?)
            }
            // A backend thread in a service that said it has none: the base applies.
            None => Ok(()),
        }
    }

    pub(super) const fn base_count(&self) -> usize {
        self.base_count
    }
}

/// Whether a call outside of the list ends the process.
const fn is_strict(role: Role) -> bool {
    match role {
        Role::Queue | Role::Session => true,
        Role::Bus | Role::Backend | Role::Worker | Role::Nursery => false,
    }
}

/// What a call outside of the list does.
fn otherwise(role: Role) -> SeccompAction {
    if is_strict(role) {
        SeccompAction::KillProcess
    } else {
        SeccompAction::Errno(errno(libc::EPERM))
    }
}

/// A program that answers one system call so, and allows all others.
fn without(number: i64, answer: SeccompAction) -> Result<BpfProgram, FilterError> {
    let rules = Rules::from([(number, Vec::new())]);
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, answer, processor()?)?.try_into()?)
}

fn errno(number: libc::c_int) -> u32 {
    number.unsigned_abs()
}

fn processor() -> Result<TargetArch, FilterError> {
    TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| FilterError::Processor(std::env::consts::ARCH))
}

fn program(rules: Rules, otherwise: SeccompAction) -> Result<BpfProgram, FilterError> {
    Ok(SeccompFilter::new(rules, otherwise, SeccompAction::Allow, processor()?)?.try_into()?)
}

fn rules_of(role: Role, policy: &Policy) -> Result<Rules, FilterError> {
    let mut rules = Rules::new();
    for allowed in syscalls::of(role) {
        add(&mut rules, allowed)?;
    }
    if role == Role::Worker {
        for allowed in syscalls::WORKER_ONLY {
            rules.remove(&allowed.number);
            add(&mut rules, allowed)?;
        }
        for number in syscalls::NO_WORKER {
            rules.remove(number);
        }
    }
    // A session starts queue threads, which inherit its filter: what a device adds for its
    // queues it adds for sessions.
    let extra = policy
        .system_calls
        .iter()
        .filter(|(of, _)| **of == role || (role == Role::Session && **of == Role::Queue));
    for number in extra.flat_map(|(_, numbers)| numbers) {
        rules.insert(*number, Vec::new());
    }
    Ok(rules)
}

fn add(rules: &mut Rules, allowed: &Allowed) -> Result<(), FilterError> {
    let conditions = conditions(allowed.when)?;
    if conditions.is_empty() {
        // No rule at all means: whatever the arguments.
        rules.insert(allowed.number, Vec::new());
        return Ok(());
    }
    if rules.get(&allowed.number).is_some_and(Vec::is_empty) {
        return Ok(());
    }
    let list = rules.entry(allowed.number).or_default();
    for all in conditions {
        list.push(SeccompRule::new(all)?);
    }
    Ok(())
}

fn merge(union: &mut Rules, rules: &Rules) {
    for (number, list) in rules {
        match union.get_mut(number) {
            None => {
                union.insert(*number, list.clone());
            }
            Some(known) if known.is_empty() || list.is_empty() => known.clear(),
            Some(known) => {
                for rule in list {
                    if !known.contains(rule) {
                        known.push(rule.clone());
                    }
                }
            }
        }
    }
}

/// What tells a process or a group to be sent signals of a descriptor, by fcntl: F_SETOWN, F_SETSIG,
/// F_SETOWN_EX. The same on all processors that seccompiler knows, but not in libc.
const OWNER: [u64; 3] = [8, 10, 15];
/// The same by ioctl: FIOSETOWN, SIOCSPGRP.
const OWNER_OF_DEVICE: [u64; 2] = [0x8901, 0x8902];
/// The bits of a socket's type that are not flags.
const SOCKET_TYPE: u64 = 0xf;

/// All conditions of one of these must hold.
fn conditions(when: When) -> Result<Vec<Vec<SeccompCondition>>, FilterError> {
    let compared = |argument, operator, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    let equal = |argument, value| compared(argument, SeccompCmpOp::Eq, value);
    let none_of = |argument, values: &[u64]| {
        let differ = values
            .iter()
            .map(|value| compared(argument, SeccompCmpOp::Ne, *value));
        differ.collect::<Result<Vec<_>, _>>()
    };
    let masked = |argument, mask, value| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(mask),
            value,
        )
    };
    let flag = |number: libc::c_int| u64::from(number.unsigned_abs());
    Ok(match when {
        When::Always => Vec::new(),
        When::NotExecutable => vec![vec![masked(2, flag(libc::PROT_EXEC), 0)?]],
        When::UnixDomain => vec![vec![equal(0, flag(libc::AF_UNIX))?]],
        When::Thread => vec![vec![masked(
            0,
            flag(libc::CLONE_THREAD),
            flag(libc::CLONE_THREAD),
        )?]],
        When::NonBlocking => vec![vec![equal(1, libc::FIONBIO)?]],
        When::Narrowing => vec![
            vec![equal(0, flag(libc::PR_SET_NAME))?],
            vec![equal(0, flag(libc::PR_GET_NAME))?],
            vec![equal(0, flag(libc::PR_SET_NO_NEW_PRIVS))?],
            vec![equal(0, flag(libc::PR_SET_SECCOMP))?],
            vec![equal(0, flag(libc::PR_SET_TIMERSLACK))?],
            // Names anonymous memory; the C library and allocators do.
            vec![equal(0, flag(libc::PR_SET_VMA))?],
        ],
        When::Itself => vec![vec![equal(0, 0)?]],
        When::OwnThread => vec![vec![equal(0, std::process::id().into())?]],
        When::Connected => vec![vec![SeccompCondition::new(
            4,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::Eq,
            0,
        )?]],
        When::StreamPair => vec![vec![
            equal(0, flag(libc::AF_UNIX))?,
            masked(1, SOCKET_TYPE, flag(libc::SOCK_STREAM))?,
        ]],
        When::NoOwner => vec![none_of(1, &OWNER)?],
        When::NoOwnerOfDevice => vec![none_of(1, &OWNER_OF_DEVICE)?],
    })
}

#[cfg(test)]
mod tests;
