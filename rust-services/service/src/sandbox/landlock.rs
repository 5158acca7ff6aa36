// SPDX-License-Identifier: Apache-2.0
//! Landlock: the part of the file system that is left, no TCP, no signals to others.

use super::{Measure, Policy};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::path::{Path, PathBuf};

/// The newest interface whose every right we know; older kernels do what they can.
const NEWEST: ABI = ABI::V6;

/// What every Rust program with the C library may look at.
const ALWAYS_READ: [&str; 4] = ["/usr/lib", "/lib", "/proc/self", "/etc/localtime"];

pub(super) fn restrict(policy: &Policy) -> Measure {
    match apply(policy) {
        Ok((status, paths)) => describe(&status, paths),
        Err(error) => Measure::Refused(error.to_string()),
    }
}

fn apply(policy: &Policy) -> Result<(landlock::RestrictionStatus, usize), RulesetError> {
    // The crate's default is best effort: what this kernel does not know is left out.
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::Signal)?;
    if policy.only.is_some() {
        // A service needs them: those of its keeper, and of some buses.
        rules = rules.scope(Scope::AbstractUnixSocket)?;
    }
    if !policy.network {
        rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let mut created = rules.create()?;
    let always = ALWAYS_READ.iter().map(PathBuf::from).collect::<Vec<_>>();
    let mut count: usize = 0;
    let read = AccessFs::from_read(NEWEST);
    let reading = always.iter().chain(&policy.read_only);
    let rules = reading
        .map(|path| (path, read))
        .chain(
            policy
                .read_write
                .iter()
                .map(|path| (path, AccessFs::from_all(NEWEST))),
        )
        .chain(
            policy
                .remove_files
                .iter()
                .map(|path| (path, AccessFs::RemoveFile.into())),
        );
    for (path, access) in rules {
        let (next, added) = allow(created, path, access)?;
        created = next;
        count = count.saturating_add(added);
    }
    Ok((created.restrict_self()?, count))
}

fn allow(
    created: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<(RulesetCreated, usize), RulesetError> {
    // A path that is not there needs no rule.
    let Ok(descriptor) = PathFd::new(path) else {
        log::debug!("{} is not there and so stays out of reach", path.display());
        return Ok((created, 0));
    };
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    Ok((created.add_rule(PathBeneath::new(descriptor, access))?, 1))
}

fn describe(status: &landlock::RestrictionStatus, paths: usize) -> Measure {
    let version = match status.landlock {
        LandlockStatus::NotImplemented => {
            return Measure::Refused("landlock is not in this kernel".to_owned());
        }
        LandlockStatus::NotEnabled => {
            return Measure::Refused(
                "landlock is not enabled: boot with lsm=landlock,…".to_owned(),
            );
        }
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => Measure::Applied(format!("{paths} paths in reach")),
        RulesetStatus::PartiallyEnforced => Measure::Partly(format!(
            "{paths} paths in reach; this kernel knows landlock {version:?} of {NEWEST:?}"
        )),
        RulesetStatus::NotEnforced => Measure::Refused("landlock enforces nothing".to_owned()),
    }
}
