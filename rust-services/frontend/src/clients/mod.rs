// SPDX-License-Identifier: Apache-2.0
//! Thin wire clients, one per device: the guest's driver reduced to its messages. Each is written
//! from the specification alone and shares nothing with the service that it speaks to, so that
//! the two check each other.
pub mod can;
pub mod media;
pub mod rpmb;
pub mod scmi;
pub mod snd;
pub mod video;
