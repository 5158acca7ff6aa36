// SPDX-License-Identifier: Apache-2.0
//! The numbers of the vhost-user protocol and of the virtio features that every device shares.

/// Front-end message types.
pub mod request {
    #![allow(
        missing_docs,
        reason = "each is the name of the message in the vhost-user text"
    )]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_LOG_FD: u32 = 7;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SEND_RARP: u32 = 19;
    pub const NET_SET_MTU: u32 = 20;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const IOTLB_MSG: u32 = 22;
    pub const SET_VRING_ENDIAN: u32 = 23;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const POSTCOPY_ADVISE: u32 = 28;
    pub const POSTCOPY_LISTEN: u32 = 29;
    pub const POSTCOPY_END: u32 = 30;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const GPU_SET_SOCKET: u32 = 33;
    pub const RESET_DEVICE: u32 = 34;
    pub const VRING_KICK: u32 = 35;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
    pub const GET_SHARED_OBJECT: u32 = 41;
    pub const SET_DEVICE_STATE_FD: u32 = 42;
    pub const CHECK_DEVICE_STATE: u32 = 43;
    pub const GET_SHMEM_CONFIG: u32 = 44;
}

/// Back-end message types.
pub mod backend_request {
    #![allow(
        missing_docs,
        reason = "each is the name of the message in the vhost-user text"
    )]
    pub const IOTLB_MSG: u32 = 1;
    pub const CONFIG_CHANGE_MSG: u32 = 2;
    pub const VRING_HOST_NOTIFIER_MSG: u32 = 3;
    pub const VRING_CALL: u32 = 4;
    pub const VRING_ERR: u32 = 5;
    pub const SHARED_OBJECT_ADD: u32 = 6;
    pub const SHARED_OBJECT_REMOVE: u32 = 7;
    pub const SHARED_OBJECT_LOOKUP: u32 = 8;
    pub const SHMEM_MAP: u32 = 9;
    pub const SHMEM_UNMAP: u32 = 10;
}

/// The flags word of a message header.
pub mod header {
    /// The protocol's version, in the lowest two bits of every message.
    pub const VERSION: u32 = 1;
    /// Set in an answer.
    pub const REPLY: u32 = 1 << 2;
    /// The sender wants an answer to a message that has none by itself (needs REPLY_ACK).
    pub const NEED_REPLY: u32 = 1 << 3;
    /// Bytes of a header.
    pub const SIZE: usize = 12;
}

/// Protocol features, as masks.
pub mod protocol_feature {
    #![allow(
        missing_docs,
        reason = "each is the name of the feature in the vhost-user text"
    )]
    pub const MQ: u64 = 1 << 0;
    pub const LOG_SHMFD: u64 = 1 << 1;
    pub const REPLY_ACK: u64 = 1 << 3;
    pub const BACKEND_REQ: u64 = 1 << 5;
    pub const CONFIG: u64 = 1 << 9;
    pub const BACKEND_SEND_FD: u64 = 1 << 10;
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    pub const RESET_DEVICE: u64 = 1 << 13;
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const SHARED_OBJECT: u64 = 1 << 18;
    pub const DEVICE_STATE: u64 = 1 << 19;
    pub const SHMEM: u64 = 1 << 22;
    /// What this driver can do, and so accepts where it is offered.
    pub const SUPPORTED: u64 = MQ
        | REPLY_ACK
        | BACKEND_REQ
        | CONFIG
        | BACKEND_SEND_FD
        | INFLIGHT_SHMFD
        | RESET_DEVICE
        | CONFIGURE_MEM_SLOTS
        | STATUS
        | SHMEM;
}

/// Virtio features that belong to the transport and the ring, as masks.
pub mod feature {
    #![allow(
        missing_docs,
        reason = "each is the name of the feature in VIRTIO 1.4, section 6"
    )]
    pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
    pub const LOG_ALL: u64 = 1 << 26;
    pub const ANY_LAYOUT: u64 = 1 << 27;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    /// vhost-user's own bit: protocol features may be negotiated.
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    pub const RING_PACKED: u64 = 1 << 34;
    pub const IN_ORDER: u64 = 1 << 35;
    /// What this driver does not do, and so never accepts.
    pub const UNSUPPORTED: u64 =
        NOTIFY_ON_EMPTY | LOG_ALL | ANY_LAYOUT | ACCESS_PLATFORM | RING_PACKED | IN_ORDER;
}

/// Device status bits (VIRTIO 1.4, 2.1).
pub mod status {
    /// The driver is set up and ready.
    pub const DRIVER_OK: u64 = 4;
    /// ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK: a running device.
    pub const RUNNING: u64 = 1 | 2 | 8 | DRIVER_OK;
}
