/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What passes between this driver and a virtio-video device: draft v5 of
 * virtio-video, as AGL uses it. It never became part of the standard. All
 * fields are little endian.
 */

#ifndef VIRTIO_VIDEO_WIRE_H
#define VIRTIO_VIDEO_WIRE_H

#include <linux/types.h>

#define VV_ID_ENCODER			30
#define VV_ID_DECODER			31

/* Feature bits. */
#define VV_F_GUEST_PAGES		0	/* buffers are the guest's pages */
#define VV_F_NON_CONTIG			1	/* of any number of pieces */
#define VV_F_VIRTIO_OBJECT		2	/* or other devices' objects */

#define VV_MAX_PLANES			8
#define VV_TAG_SIZE			64

struct vv_wire_config {
	__le32 version;
	__le32 max_caps_length;
	__le32 max_resp_length;
} __packed;

enum vv_wire_type {
	VV_CMD_QUERY_CAPABILITY = 0x100,
	VV_CMD_STREAM_CREATE = 0x101,
	VV_CMD_STREAM_DESTROY = 0x102,
	VV_CMD_STREAM_DRAIN = 0x103,
	VV_CMD_RESOURCE_ATTACH = 0x104,
	VV_CMD_RESOURCE_QUEUE = 0x105,
	VV_CMD_QUEUE_DETACH_RESOURCES = 0x106,
	VV_CMD_QUEUE_CLEAR = 0x107,
	VV_CMD_GET_PARAMS = 0x108,
	VV_CMD_SET_PARAMS = 0x109,
	VV_CMD_QUERY_CONTROL = 0x10a,
	VV_CMD_GET_CONTROL = 0x10b,
	VV_CMD_SET_CONTROL = 0x10c,

	VV_RESP_OK_NODATA = 0x200,
	VV_RESP_OK_QUERY_CAPABILITY = 0x201,
	VV_RESP_OK_RESOURCE_QUEUE = 0x202,
	VV_RESP_OK_GET_PARAMS = 0x203,
	VV_RESP_OK_QUERY_CONTROL = 0x204,
	VV_RESP_OK_GET_CONTROL = 0x205,

	VV_RESP_ERR_INVALID_OPERATION = 0x300,
	VV_RESP_ERR_OUT_OF_MEMORY = 0x301,
	VV_RESP_ERR_INVALID_STREAM_ID = 0x302,
	VV_RESP_ERR_INVALID_RESOURCE_ID = 0x303,
	VV_RESP_ERR_INVALID_PARAMETER = 0x304,
	VV_RESP_ERR_UNSUPPORTED_CONTROL = 0x305,
};

/* Begins every command and every response. */
struct vv_wire_header {
	__le32 type;
	__le32 stream_id;
} __packed;

/* What the device takes in, and what it gives out. */
#define VV_QUEUE_INPUT			0x100
#define VV_QUEUE_OUTPUT			0x101

#define VV_MEM_GUEST_PAGES		0
#define VV_MEM_VIRTIO_OBJECT		1

#define VV_LAYOUT_SINGLE_BUFFER		BIT(0)
#define VV_LAYOUT_PER_PLANE		BIT(1)

struct vv_wire_range {
	__le32 min;
	__le32 max;
	__le32 step;
	__u8 padding[4];
} __packed;

struct vv_wire_desc {
	__le64 mask;		/* which formats of the other queue go with it */
	__le32 format;
	__le32 planes_layout;
	__le32 plane_align;
	__le32 num_frames;
	/* num_frames times struct vv_wire_frame */
} __packed;

struct vv_wire_frame {
	struct vv_wire_range width;
	struct vv_wire_range height;
	__le32 num_rates;
	__u8 padding[4];
	/* num_rates times struct vv_wire_range, in frames a second */
} __packed;

struct vv_wire_query_capability {
	struct vv_wire_header header;
	__le32 queue_type;
	__u8 padding[4];
} __packed;

struct vv_wire_capabilities {
	struct vv_wire_header header;
	__le32 num_descs;
	__u8 padding[4];
	/* num_descs times struct vv_wire_desc */
} __packed;

struct vv_wire_stream_create {
	struct vv_wire_header header;
	__le32 in_mem_type;
	__le32 out_mem_type;
	__le32 coded_format;
	__u8 padding[4];
	char tag[VV_TAG_SIZE];
} __packed;

struct vv_wire_sg_list {
	__le32 num_entries;
	__u8 padding[4];
	/* num_entries times struct vv_wire_sg_entry */
} __packed;

struct vv_wire_sg_entry {
	__le64 addr;
	__le32 length;
	__u8 padding[4];
} __packed;

struct vv_wire_resource_attach {
	struct vv_wire_header header;
	__le32 queue_type;
	__le32 resource_id;
	/* for each plane a struct vv_wire_sg_list or vv_wire_object */
} __packed;

struct vv_wire_object {
	__u8 uuid[16];
} __packed;

struct vv_wire_resource_queue {
	struct vv_wire_header header;
	__le32 queue_type;
	__le32 resource_id;
	__le32 flags;
	__u8 padding[4];
	__le64 timestamp;
	__le32 data_sizes[VV_MAX_PLANES];
} __packed;

#define VV_BUFFER_EOS			BIT(0)
#define VV_BUFFER_KEY_FRAME		BIT(1)
#define VV_BUFFER_B_FRAME		BIT(2)

struct vv_wire_resource_queued {
	struct vv_wire_header header;
	__le32 flags;
	__u8 padding[4];
	__le64 timestamp;
	__le32 data_sizes[VV_MAX_PLANES];
} __packed;

/* QUEUE_DETACH_RESOURCES, QUEUE_CLEAR, GET_PARAMS */
struct vv_wire_of_queue {
	struct vv_wire_header header;
	__le32 queue_type;
	__u8 padding[4];
} __packed;

struct vv_wire_crop {
	__le32 left;
	__le32 top;
	__le32 width;
	__le32 height;
} __packed;

struct vv_wire_plane {
	__le32 size;
	__le32 stride;
} __packed;

struct vv_wire_params {
	__le32 queue_type;
	__le32 format;
	__le32 width;
	__le32 height;
	__le32 min_buffers;
	__le32 max_buffers;
	struct vv_wire_crop crop;
	__le32 frame_rate;
	__le32 num_planes;
	struct vv_wire_plane planes[VV_MAX_PLANES];
} __packed;

/* SET_PARAMS, and the response to GET_PARAMS */
struct vv_wire_params_message {
	struct vv_wire_header header;
	struct vv_wire_params params;
} __packed;

enum vv_wire_control {
	VV_CONTROL_BITRATE = 1,
	VV_CONTROL_PROFILE = 2,
	VV_CONTROL_LEVEL = 3,
	/* not in v5: numbers of draft v3, asked for before they are used */
	VV_CONTROL_FORCE_KEY_FRAME = 4,
	VV_CONTROL_BITRATE_MODE = 5,
	/* nobody's number: ours */
	VV_CONTROL_KEY_FRAME_INTERVAL = 0x1000,
};

#define VV_BITRATE_MODE_VBR		0
#define VV_BITRATE_MODE_CBR		1

struct vv_wire_query_control {
	struct vv_wire_header header;
	__le32 control;
	__u8 padding[4];
	__le32 format;
	__u8 padding2[4];
} __packed;

struct vv_wire_control_values {
	struct vv_wire_header header;
	__le32 num;
	__u8 padding[4];
	/* num times __le32 */
} __packed;

struct vv_wire_set_control {
	struct vv_wire_header header;
	__le32 control;
	__u8 padding[4];
	__le32 value;
	__u8 padding2[4];
} __packed;

#define VV_EVENT_ERROR				0x100
#define VV_EVENT_DECODER_RESOLUTION_CHANGED	0x200

struct vv_wire_event {
	__le32 type;
	__le32 stream_id;
} __packed;

enum vv_wire_format {
	VV_FORMAT_ARGB8888 = 1,
	VV_FORMAT_BGRA8888,
	VV_FORMAT_RGBA8888,
	VV_FORMAT_NV12,
	VV_FORMAT_YUV420,
	VV_FORMAT_YVU420,
	VV_FORMAT_YUV422,
	VV_FORMAT_MPEG2 = 0x1000,
	VV_FORMAT_MPEG4,
	VV_FORMAT_H264,
	VV_FORMAT_HEVC,
	VV_FORMAT_VP8,
	VV_FORMAT_VP9,
};

enum vv_wire_profile {
	VV_PROFILE_H264_BASELINE = 0x100,
	VV_PROFILE_H264_MAIN,
	VV_PROFILE_H264_EXTENDED,
	VV_PROFILE_H264_HIGH,
	VV_PROFILE_H264_HIGH_10,
	VV_PROFILE_H264_HIGH_422,
	VV_PROFILE_H264_HIGH_444_PREDICTIVE,
	VV_PROFILE_HEVC_MAIN = 0x200,
	VV_PROFILE_HEVC_MAIN_10,
	VV_PROFILE_HEVC_MAIN_STILL_PICTURE,
	VV_PROFILE_VP8_0 = 0x300,
	VV_PROFILE_VP8_1,
	VV_PROFILE_VP8_2,
	VV_PROFILE_VP8_3,
	VV_PROFILE_VP9_0 = 0x400,
	VV_PROFILE_VP9_1,
	VV_PROFILE_VP9_2,
	VV_PROFILE_VP9_3,
};

#define VV_LEVEL_H264_1_0			0x100
#define VV_LEVEL_H264_5_1			0x10e

#endif
