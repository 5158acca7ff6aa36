// SPDX-License-Identifier: Apache-2.0

//! The platform's lock: what all services have whose guests share something.

pub use agl_virtio_service::fair::{Fair, FairGuard};
