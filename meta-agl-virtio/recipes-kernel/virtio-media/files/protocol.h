/* SPDX-License-Identifier: GPL-2.0 */
/* What travels between driver and device (VIRTIO 1.4, 5.22). */
#ifndef VIRTIO_MEDIA_PROTOCOL_H
#define VIRTIO_MEDIA_PROTOCOL_H

#include <linux/types.h>
#include <linux/videodev2.h>
#include <linux/virtio_ids.h>

#ifndef VIRTIO_ID_MEDIA
#define VIRTIO_ID_MEDIA 48
#endif

/* A test whose VMM knows no such device says another number. */
#ifndef VIRTIO_MEDIA_NUMBER
#define VIRTIO_MEDIA_NUMBER VIRTIO_ID_MEDIA
#endif

struct virtio_media_config {
	__le32 device_caps;
	__le32 device_type;
	u8 card[32];
};

enum virtio_media_command_code {
	VIRTIO_MEDIA_CMD_OPEN = 1,
	VIRTIO_MEDIA_CMD_CLOSE = 2,
	VIRTIO_MEDIA_CMD_IOCTL = 3,
	VIRTIO_MEDIA_CMD_MMAP = 4,
	VIRTIO_MEDIA_CMD_MUNMAP = 5,
};

struct virtio_media_cmd_header {
	__le32 cmd;
	__le32 reserved;
};

struct virtio_media_resp_header {
	__le32 status;
	__le32 reserved;
};

struct virtio_media_resp_open {
	struct virtio_media_resp_header header;
	__le32 session;
	__le32 reserved;
};

struct virtio_media_cmd_close {
	struct virtio_media_cmd_header header;
	__le32 session;
	__le32 reserved;
};

struct virtio_media_cmd_ioctl {
	struct virtio_media_cmd_header header;
	__le32 session;
	__le32 number;
};

/* The shared memory region that has the device's buffers. */
#define VIRTIO_MEDIA_REGION 0

#define VIRTIO_MEDIA_MMAP_WRITABLE 1

struct virtio_media_cmd_mmap {
	struct virtio_media_cmd_header header;
	__le32 session;
	__le32 flags;
	__le32 offset;			/* as QUERYBUF tells it */
};

struct virtio_media_resp_mmap {
	struct virtio_media_resp_header header;
	__le64 place;			/* in the region */
	__le64 len;
};

struct virtio_media_cmd_munmap {
	struct virtio_media_cmd_header header;
	__le64 place;
};

/* A run of pages of a buffer. */
struct virtio_media_sg_entry {
	__le64 start;
	__le32 len;
	__le32 reserved;
};

enum virtio_media_event_code {
	VIRTIO_MEDIA_EVT_ERROR = 0,
	VIRTIO_MEDIA_EVT_DQBUF = 1,
	VIRTIO_MEDIA_EVT_EVENT = 2,
};

struct virtio_media_event {
	__le32 event;
	__le32 session;
	union {
		struct {
			__le32 number;
			__le32 reserved;
		} error;
		struct {
			struct v4l2_buffer buffer;
			struct v4l2_plane planes[VIDEO_MAX_PLANES];
		} dqbuf;
		struct v4l2_event event;
	} u;
};

#endif
