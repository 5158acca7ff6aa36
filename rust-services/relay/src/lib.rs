// SPDX-License-Identifier: Apache-2.0

//! Relays vhost-user between a VMM and a device service, and keeps what must outlive the service.
#![forbid(unsafe_code)]

pub mod record;
