/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The driver's own objects. A device has sessions, one for each open file; a
 * session has two buffer queues and, once it has buffers, a stream of the
 * device.
 *
 * Locks, the outer first: a session's lock (its ioctls and buffer queues), its
 * controls' lock, the device's spinlock (virtqueues, and all that answers of the
 * device change), then those of videobuf2 and of V4L2's events.
 */

#ifndef VIRTIO_VIDEO_DRIVER_H
#define VIRTIO_VIDEO_DRIVER_H

#include <linux/bits.h>
#include <linux/completion.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/videodev2.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <media/v4l2-ctrls.h>
#include <media/v4l2-dev.h>
#include <media/v4l2-device.h>
#include <media/v4l2-event.h>
#include <media/v4l2-fh.h>
#include <media/videobuf2-v4l2.h>

#include "wire.h"

/* Before 7.0. */
#ifndef kzalloc_obj
#define kzalloc_obj(object) kzalloc(sizeof(object), GFP_KERNEL)
#endif

/* Before 6.8. */
#ifndef VV_HAS_NUM_BUFFERS
#define vb2_get_num_buffers(q)	((q)->num_buffers)
#endif

struct scatterlist;
struct virtio_device;
struct virtqueue;
struct vv_device;
struct vv_session;

/* As V4L2 sees them, which is also as the device does: what goes in, and out. */
enum vv_side {
	VV_IN,		/* V4L2's OUTPUT queue */
	VV_OUT,		/* V4L2's CAPTURE queue */
	VV_SIDES
};

/* ---- what the device is able to do: caps.c ---- */

#define VV_MAX_FORMATS		32
#define VV_MAX_FRAMES		8
#define VV_MAX_RATES		16
#define VV_MAX_VALUES		32

struct vv_range {
	u32 min;
	u32 max;
	u32 step;
};

struct vv_frame {
	struct vv_range width;
	struct vv_range height;
	u32 num_rates;
	struct vv_range rates[VV_MAX_RATES];
};

struct vv_values {
	bool known;		/* the device has this control */
	u32 num;
	u32 values[VV_MAX_VALUES];
};

/* A format as the device offers it, in one arrangement of its planes. */
struct vv_format {
	const struct vv_pixel *pixel;
	u64 mask;		/* by the device's numbers of the other side */
	u32 number;		/* its number on this side */
	u32 align;		/* of strides, a power of two */
	u32 num_frames;
	struct vv_frame frames[VV_MAX_FRAMES];
	/* the least and the most of all frames */
	struct vv_range width;
	struct vv_range height;
	/* coded ones only */
	struct vv_values profiles;
	struct vv_values levels;
	bool has_bitrate;
	bool has_force_key_frame;
	bool has_bitrate_mode;
	bool has_key_frame_interval;
};

struct vv_formats {
	u32 num;
	struct vv_format *formats;
};

int vv_caps_read(struct vv_device *vv);
void vv_caps_free(struct vv_device *vv);

/* ---- pixel formats and where their samples lie: formats.c ---- */

struct vv_pixel {
	u32 wire;		/* enum vv_wire_format */
	u32 fourcc;
	bool coded;
	bool per_plane;		/* each component in memory of its own */
	u8 components;
	u8 bytes;		/* of a pixel of the first component */
	u8 hdiv;		/* of the others */
	u8 vdiv;
	u8 interleaved;		/* samples in a pixel of the others */
};

const struct vv_pixel *vv_pixel_find(u32 wire, bool per_plane);
struct vv_format *vv_format_find(struct vv_device *vv, enum vv_side side,
				 u32 fourcc);
bool vv_format_goes_with(struct vv_device *vv, const struct vv_format *raw,
			 const struct vv_format *coded);
u32 vv_range_fit(const struct vv_range *range, u32 value);
void vv_picture_lay_out(const struct vv_format *format,
			struct v4l2_pix_format_mplane *pix);
bool vv_picture_is_sound(const struct vv_format *format,
			 const struct v4l2_pix_format_mplane *pix);
void vv_try_coded(const struct vv_format *format,
		  struct v4l2_pix_format_mplane *pix);
void vv_try_raw(const struct vv_format *format,
		struct v4l2_pix_format_mplane *pix);

/* ---- the command queue: queue.c ---- */

struct vv_request {
	struct list_head entry;		/* in the backlog */
	struct kref users;
	/* Called with the device's lock held; NULL: somebody waits. */
	void (*done)(struct vv_request *request);
	struct completion completed;
	const void *owner;		/* for vv_backlog_cancel() */
	int status;			/* 0, or why it never was answered */
	u32 written;
	u32 out_len;
	u32 in_len;
	void *out;
	void *in;
	bool owned;			/* out and in go with it */
};

int vv_exchange(struct vv_device *vv, const void *out, u32 out_len, void *in,
		u32 in_len, u32 *written);
void vv_submit(struct vv_device *vv, struct vv_request *request);
void vv_backlog_cancel(struct vv_device *vv, const void *owner);
int vv_response_check(const void *in, u32 written, u32 least, u32 type,
		      u32 stream_id);
struct vv_request *vv_request_new(const void *out, u32 out_len, u32 in_len);
void vv_request_put(struct vv_request *request);
void vv_queue_collect(struct vv_device *vv);
void vv_queue_interrupt(struct virtqueue *vq);
void vv_queue_abandon(struct vv_device *vv, struct virtqueue *vq);

/* ---- one command each: commands.c ---- */

int vv_stream_create(struct vv_device *vv, u32 id, u32 coded_format);
int vv_stream_destroy(struct vv_device *vv, u32 id);
int vv_attach(struct vv_session *session, enum vv_side side,
	      struct vb2_buffer *vb);
int vv_detach_all(struct vv_session *session, enum vv_side side);
int vv_clear(struct vv_session *session, enum vv_side side);
int vv_get_params(struct vv_session *session, enum vv_side side,
		  struct vv_wire_params *params);
int vv_set_params(struct vv_session *session, enum vv_side side,
		  const struct vv_wire_params *params);
int vv_query_control(struct vv_device *vv, u32 control, u32 format,
		     struct vv_values *values);
int vv_set_control(struct vv_session *session, u32 control, u32 value);

/* ---- the event queue: events.c ---- */

#define VV_EVENTS		32

void vv_events_offer(struct vv_device *vv);
void vv_events_interrupt(struct virtqueue *vq);

/* ---- the device: core.c ---- */

struct vv_device {
	struct v4l2_device v4l2;
	struct video_device node;
	struct device *dma_dev;
	bool encoder;
	bool non_contig;
	bool physical;		/* the device knows no DMA addresses */
	bool objects;		/* pictures lie in other devices' objects */
	u32 max_caps_length;
	u32 max_resp_length;
	struct vv_formats formats[VV_SIDES];
	struct workqueue_struct *works;
	struct work_struct restart;
	/* Held over the device's end and its new starts. */
	struct mutex life;
	bool registered;
	bool broken;		/* to be started anew */

	/* Guards the rest. */
	spinlock_t lock;
	struct virtio_device *vdev;	/* NULL once it is gone */
	struct virtqueue *commandq;	/* NULL while there is none to use */
	struct virtqueue *eventq;
	struct list_head backlog;
	/* Woken when there is room in the command queue, or will never be. */
	wait_queue_head_t room;
	struct xarray sessions;		/* by the id of their stream */
	u32 last_stream;
	struct vv_wire_event *events;
};

extern unsigned int vv_timeout_ms;

void vv_device_misbehaves(struct vv_device *vv, const char *how);
void vv_device_start_anew(struct vv_device *vv);

/* ---- an open file: session.c ---- */

/* What a capture buffer takes over from the one that it was made of. */
struct vv_origin {
	u64 timestamp;
	u32 flags;
	struct v4l2_timecode timecode;
};

#define VV_ORIGINS		64

struct vv_lane {
	struct vb2_queue queue;
	struct vv_session *session;
	enum vv_side side;
	const struct vv_format *format;
	struct v4l2_pix_format_mplane pix;
	u32 min_buffers;
	u32 sequence;
	bool streaming;
	u32 generation;		/* of what is attached; changes with all of it */
	/* the device's lock guards these */
	struct list_head ready;		/* buffers that the device has not */
	u32 in_device;
	bool clearing;		/* what comes back unused goes to ready again */
	wait_queue_head_t idle;
};

struct vv_session {
	struct v4l2_fh fh;
	struct vv_device *vv;
	/* Held over all that is done with the file. */
	struct mutex lock;
	struct v4l2_ctrl_handler controls;
	struct v4l2_ctrl *min_buffers;
	bool applying;		/* to a new stream, with the controls' lock */
	struct vv_lane lanes[VV_SIDES];
	struct v4l2_rect crop;	/* what is seen of raw pictures, and where */
	struct v4l2_fract interval;
	struct work_struct change;

	/* Changes with the session's and the controls' lock held. */
	u32 stream;		/* 0: none */

	/* The device's lock guards the rest. */
	bool lost;		/* the device has forgotten the stream */
	bool fed;		/* it has input of which no end was told yet */
	bool draining;		/* asked for the end */
	u32 ends_to_ignore;	/* asked for, and not wanted any more */
	bool stopped;		/* at the end, until told to go on */
	bool changing;		/* the device has told of a change */
	bool held;		/* the program was told, and has to go on */
	bool last_due;		/* the next capture buffer is the last one */
	struct vv_origin origins[VV_ORIGINS];
	u32 next_origin;
};

struct vv_buffer {
	struct vb2_v4l2_buffer vbuf;
	struct list_head entry;		/* in its lane's ready list */
	bool attached;
	u32 generation;
	struct vv_request request;
	struct vv_wire_resource_queue out;
	struct vv_wire_resource_queued in;
};

extern const struct v4l2_file_operations vv_file_operations;

static inline struct vv_session *vv_session_of(struct file *file)
{
	return container_of((struct v4l2_fh *)file->private_data,
			    struct vv_session, fh);
}

static inline enum vv_side vv_side_of(u32 type)
{
	return V4L2_TYPE_IS_OUTPUT(type) ? VV_IN : VV_OUT;
}

static inline enum vv_side vv_raw_side(const struct vv_device *vv)
{
	return vv->encoder ? VV_IN : VV_OUT;
}

static inline enum vv_side vv_coded_side(const struct vv_device *vv)
{
	return vv->encoder ? VV_OUT : VV_IN;
}

static inline u32 vv_wire_side(enum vv_side side)
{
	return side == VV_IN ? VV_QUEUE_INPUT : VV_QUEUE_OUTPUT;
}

/* ---- its stream, and formats as they are agreed: stream.c ---- */

void vv_formats_reset(struct vv_session *session);
int vv_stream_open(struct vv_session *session);
void vv_stream_close(struct vv_session *session);
void vv_stream_lost(struct vv_session *session);
void vv_stream_lost_locked(struct vv_session *session);
int vv_params_agree(struct vv_session *session, enum vv_side side);
int vv_params_take(struct vv_session *session, enum vv_side side);

/* ---- buffers and their way: buffers.c, flow.c ---- */

int vv_lane_init(struct vv_session *session, enum vv_side side);
void vv_buffer_returned(struct vv_request *request);

void vv_flow_push(struct vv_session *session);
void vv_flow_begin(struct vv_session *session, enum vv_side side);
void vv_flow_end(struct vv_session *session, enum vv_side side);
int vv_flow_stop(struct vv_session *session);
int vv_flow_start(struct vv_session *session);
void vv_flow_change(struct work_struct *work);

/* ---- pictures in other devices' objects: objects.c ---- */

#ifdef VV_HAS_OBJECTS
extern bool vv_objects_wanted;
extern const struct vb2_mem_ops vv_object_memops;

const u8 *vv_object_name(struct vb2_buffer *vb, u32 plane);
#else
#define vv_objects_wanted	false
#endif

/* Whether the buffers of a side are objects of other virtio devices. */
static inline bool vv_side_has_objects(const struct vv_device *vv,
				       enum vv_side side)
{
	return vv->objects && side == vv_raw_side(vv);
}

/* ---- what programs ask: ioctls, negotiation, selection, controls.c ---- */

/* Where the capture buffers begin in what mmap() takes. */
#define VV_OUT_OFFSET		BIT(30)

extern const struct v4l2_ioctl_ops vv_decoder_ioctls;
extern const struct v4l2_ioctl_ops vv_encoder_ioctls;

int vv_controls_init(struct vv_session *session);
int vv_controls_apply(struct vv_session *session);
u32 vv_frame_rate(const struct vv_session *session);

int vv_enum_format(struct file *file, void *priv, struct v4l2_fmtdesc *desc);
int vv_enum_sizes(struct file *file, void *priv, struct v4l2_frmsizeenum *size);
int vv_enum_intervals(struct file *file, void *priv,
		      struct v4l2_frmivalenum *interval);
int vv_g_format(struct file *file, void *priv, struct v4l2_format *f);
int vv_try_format(struct file *file, void *priv, struct v4l2_format *f);
int vv_s_format(struct file *file, void *priv, struct v4l2_format *f);
void vv_encoder_coded_follow(struct vv_session *session);
int vv_g_selection(struct file *file, void *priv, struct v4l2_selection *sel);
int vv_s_selection(struct file *file, void *priv, struct v4l2_selection *sel);
int vv_g_parm(struct file *file, void *priv, struct v4l2_streamparm *parm);
int vv_s_parm(struct file *file, void *priv, struct v4l2_streamparm *parm);

#endif
