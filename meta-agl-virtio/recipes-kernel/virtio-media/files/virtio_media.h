/* SPDX-License-Identifier: GPL-2.0 */
/* The driver's own types: a device, its sessions, their queues of buffers. */
#ifndef VIRTIO_MEDIA_H
#define VIRTIO_MEDIA_H

#include <linux/bits.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <media/v4l2-ctrls.h>
#include <media/v4l2-device.h>
#include <media/v4l2-event.h>
#include <media/v4l2-fh.h>
#include <media/v4l2-ioctl.h>
#include <media/videobuf2-v4l2.h>

#include "compat.h"
#include "protocol.h"

/* Chunks that a device may use for events: more than a session has buffers. */
#define VIRTIO_MEDIA_EVENTS 64

struct virtio_media_session;

/*
 * One queue of buffers. A camera has one, which the session that has asked for
 * buffers owns; each session of a codec has two of its own.
 *
 * Buffers are vb2's, in pages of the guest. The device is told of these pages
 * with each buffer (SHARED_PAGES), so that whatever memory vb2 can handle the
 * device can use. Where it takes no pages, buffers are the device's own (MMAP),
 * in its shared memory region.
 */
struct virtio_media_queue {
	struct vb2_queue vb2;
	struct mutex lock;		/* serialises the queue's ioctls */
	struct virtio_media *media;
	struct virtio_media_session *session;	/* whose buffers these are */
	struct list_head queued;	/* buffers that the device has */
	spinlock_t queued_lock;		/* also taken by the event interrupt */
	unsigned int device_slots;	/* buffers the device has room for */
	unsigned int planes;		/* as they were when there were no buffers */
	unsigned int sizes[VIDEO_MAX_PLANES];
	bool started;			/* the device streams, or should */
};

struct virtio_media_buffer {
	struct vb2_v4l2_buffer vb;	/* first, for vb2 */
	struct list_head list;
};

/* One open file. */
struct virtio_media_session {
	struct v4l2_fh fh;
	struct virtio_media *media;
	struct list_head list;
	struct rw_semaphore alive;	/* held to write while it is begun anew */
	struct work_struct revive;
	u32 id;				/* with sessions_lock */
	bool lost;			/* the device has given it up */
	unsigned int births;		/* with alive: how often it was begun anew */
	bool closing;			/* with sessions_lock */
	struct virtio_media_queue *capture;
	struct virtio_media_queue *output;	/* of a codec */
};

struct virtio_media {
	struct v4l2_device v4l2;
	struct video_device video;
	struct virtio_device *vdev;	/* NULL once it is gone */
	struct device *dma_dev;
	struct virtqueue *commandq;	/* NULL while it cannot be used */
	struct virtqueue *eventq;
	spinlock_t command_lock;	/* the two above, and the command queue */
	spinlock_t event_lock;		/* the event queue */
	wait_queue_head_t changed;
	struct list_head sessions;
	spinlock_t sessions_lock;	/* also taken by the event interrupt */
	struct virtio_media_queue camera;
	struct workqueue_struct *work;
	struct mutex settings_lock;	/* what a camera was set to: these */
	struct v4l2_format format;
	struct v4l2_streamparm parm;
	struct v4l2_ext_control controls[32];
	unsigned int controls_set;
	struct virtio_media_event *events;
	struct virtio_shm_region region;
	bool in_region;			/* buffers are the device's own */
	void *memory;			/* the region, for the driver itself; or nothing */
	struct rw_semaphore placing;	/* the device is mapping one; to write: */
	bool leaving;			/* and maps none any more */
	struct mutex region_lock;	/* what is mapped in it: these */
	struct list_head mappings;
	unsigned int resets;
	bool asleep;			/* what comes back now is lost with the reset */
	struct virtio_media_event heard; /* with event_lock: the device writes to events */
	u32 caps;
	bool has_dma_quirk;
	char card[33];
};

static inline bool virtio_media_is_codec(const struct virtio_media *media)
{
	return media->caps & (V4L2_CAP_VIDEO_M2M | V4L2_CAP_VIDEO_M2M_MPLANE);
}

/* What a queue's buffers are for the device. */
static inline u32 virtio_media_memory(const struct virtio_media_queue *queue)
{
	return queue->media->in_region ? V4L2_MEMORY_MMAP : V4L2_MEMORY_USERPTR;
}

static inline struct virtio_media_session *virtio_media_session(struct file *file)
{
	return container_of(virtio_media_fh(file), struct virtio_media_session, fh);
}

/* command.c */
struct virtio_media_buffers {
	const void *out;		/* after the ioctl's header */
	size_t out_len;
	void *in;			/* after the answer's header */
	size_t in_len;
};

int virtio_media_open_session(struct virtio_media *media, u32 *id);
void virtio_media_close_session(struct virtio_media *media, u32 id);
/* With session->alive held. The place is in the region, as is all of len. */
int virtio_media_map_place(struct virtio_media_session *session, u32 offset,
			   bool writable, u64 *place, u64 *len);
int virtio_media_unmap_place(struct virtio_media *media, u64 place);
/* Waits for a session that is being begun anew, and tries again. */
int virtio_media_command(struct virtio_media_session *session, u32 number,
			 const struct virtio_media_buffers *buffers);
/* With session->alive held. */
int virtio_media_command_once(struct virtio_media_session *session, u32 number,
			      const struct virtio_media_buffers *buffers);
void virtio_media_command_interrupt(struct virtqueue *vq);
void virtio_media_abandon_commands(struct virtio_media *media,
				   struct virtqueue *vq);

/* An ioctl whose payload both sides write, one of them, or nobody. */
int virtio_media_ioctl(struct virtio_media_session *session, unsigned int cmd,
		       void *arg);
int virtio_media_ioctl_once(struct virtio_media_session *session,
			    unsigned int cmd, void *arg);

/* events.c */
int virtio_media_fill_events(struct virtio_media *media);
void virtio_media_event_interrupt(struct virtqueue *vq);
void virtio_media_take_events(struct virtio_media *media);

/* session.c */
#define VIRTIO_MEDIA_CAPTURE_OFFSET BIT(30)

extern const struct v4l2_file_operations virtio_media_fops;

/* revive.c */
void virtio_media_lose(struct virtio_media_session *session, bool for_good);
void virtio_media_lose_all(struct virtio_media *media, bool for_good);
void virtio_media_revive_all(struct virtio_media *media);
void virtio_media_revive(struct work_struct *work);
/* Whether a command may have failed because the session is to begin anew. */
bool virtio_media_may_return(struct virtio_media_session *session, int err);

/* ioctl.c, formats.c, controls.c */
extern const struct v4l2_ioctl_ops virtio_media_ioctl_ops;
int virtio_media_enum_fmt(struct file *file, void *priv, struct v4l2_fmtdesc *arg);
int virtio_media_g_fmt(struct file *file, void *priv, struct v4l2_format *arg);
int virtio_media_s_fmt(struct file *file, void *priv, struct v4l2_format *arg);
int virtio_media_try_fmt(struct file *file, void *priv, struct v4l2_format *arg);
int virtio_media_enum_framesizes(struct file *file, void *priv,
				 struct v4l2_frmsizeenum *arg);
int virtio_media_enum_frameintervals(struct file *file, void *priv,
				     struct v4l2_frmivalenum *arg);
int virtio_media_g_parm(struct file *file, void *priv, struct v4l2_streamparm *arg);
int virtio_media_s_parm(struct file *file, void *priv, struct v4l2_streamparm *arg);
int virtio_media_enum_input(struct file *file, void *priv, struct v4l2_input *arg);
int virtio_media_g_input(struct file *file, void *priv, unsigned int *arg);
int virtio_media_s_input(struct file *file, void *priv, unsigned int arg);
int virtio_media_g_selection(struct file *file, void *priv,
			     struct v4l2_selection *arg);
int virtio_media_s_selection(struct file *file, void *priv,
			     struct v4l2_selection *arg);
#ifdef VIRTIO_MEDIA_QUERYCTRL
int virtio_media_queryctrl(struct file *file, void *priv, struct v4l2_queryctrl *arg);
#endif
int virtio_media_query_ext_ctrl(struct file *file, void *priv,
				struct v4l2_query_ext_ctrl *arg);
int virtio_media_querymenu(struct file *file, void *priv, struct v4l2_querymenu *arg);
int virtio_media_g_ext_ctrls(struct file *file, void *priv,
			     struct v4l2_ext_controls *arg);
int virtio_media_s_ext_ctrls(struct file *file, void *priv,
			     struct v4l2_ext_controls *arg);
int virtio_media_try_ext_ctrls(struct file *file, void *priv,
			       struct v4l2_ext_controls *arg);
void virtio_media_restore_controls(struct virtio_media_session *session);
int virtio_media_subscribe(struct v4l2_fh *fh,
			   const struct v4l2_event_subscription *wish);
int virtio_media_unsubscribe(struct v4l2_fh *fh,
			     const struct v4l2_event_subscription *wish);

/* region.c */
extern const struct vb2_mem_ops virtio_media_region_ops;
/* With session->alive held: programs see a buffer where the device has it now. */
int virtio_media_region_refresh(struct virtio_media_queue *queue,
				unsigned int index);
/* Has the device unmap all, until programs touch it again, as it was or empty. */
void virtio_media_region_give_back(struct virtio_media *media, bool keep);
/* The same for good: nothing is mapped after it. */
void virtio_media_region_leave(struct virtio_media *media);
/* The device is about to be reset, which takes all that is mapped. */
void virtio_media_region_forget(struct virtio_media *media);

/* queue.c */
int virtio_media_queue_init(struct virtio_media_queue *queue,
			    struct virtio_media *media,
			    struct virtio_media_session *session, u32 type);
void virtio_media_queue_release(struct virtio_media_queue *queue);
void virtio_media_queue_error(struct virtio_media_queue *queue);
void virtio_media_buffer_done(struct virtio_media_queue *queue,
			      const struct v4l2_buffer *buffer,
			      const struct v4l2_plane *planes);
void virtio_media_queue_reset(struct virtio_media_queue *queue);
int virtio_media_queue_revive(struct virtio_media_queue *queue);
struct virtio_media_queue *virtio_media_queue_of(struct virtio_media_session *session,
						 u32 type);

#endif
