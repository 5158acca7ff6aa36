// SPDX-License-Identifier: GPL-2.0
/*
 * An open file is a session: opened, polled, mapped and closed here.
 */

#include <linux/poll.h>
#include <linux/slab.h>
#include <media/v4l2-ioctl.h>

#include "driver.h"

static void vv_session_free(struct vv_session *session)
{
	v4l2_ctrl_handler_free(&session->controls);
	mutex_destroy(&session->lock);
	kfree(session);
}

static int vv_session_open(struct file *file)
{
	struct vv_device *vv = video_drvdata(file);
	struct vv_session *session = kzalloc_obj(*session);
	int err;

	if (!session)
		return -ENOMEM;
	session->vv = vv;
	mutex_init(&session->lock);
	INIT_WORK(&session->change, vv_flow_change);
	err = vv_lane_init(session, VV_IN);
	if (!err)
		err = vv_lane_init(session, VV_OUT);
	if (!err) {
		vv_formats_reset(session);
		err = vv_controls_init(session);
	}
	if (err) {
		vv_session_free(session);
		return err;
	}
	v4l2_fh_init(&session->fh, &vv->node);
	session->fh.ctrl_handler = &session->controls;
#ifdef VV_HAS_FILE_IN_FH
	v4l2_fh_add(&session->fh, file);
#else
	file->private_data = &session->fh;
	v4l2_fh_add(&session->fh);
#endif
	return 0;
}

static int vv_session_release(struct file *file)
{
	struct vv_session *session = vv_session_of(file);

	mutex_lock(&session->lock);
	vb2_queue_release(&session->lanes[VV_IN].queue);
	vb2_queue_release(&session->lanes[VV_OUT].queue);
	vv_stream_close(session);
	mutex_unlock(&session->lock);
	/* Without a stream no event asks for it any more. */
	cancel_work_sync(&session->change);
#ifdef VV_HAS_FILE_IN_FH
	v4l2_fh_del(&session->fh, file);
#else
	v4l2_fh_del(&session->fh);
#endif
	v4l2_fh_exit(&session->fh);
	vv_session_free(session);
	return 0;
}

static bool vv_queue_is_done(struct vb2_queue *queue)
{
	unsigned long flags;
	bool done;

	spin_lock_irqsave(&queue->done_lock, flags);
	done = !list_empty(&queue->done_list);
	spin_unlock_irqrestore(&queue->done_lock, flags);
	return done;
}

/* Whether anything will ever come of waiting for this queue. */
static bool vv_queue_is_alive(struct vb2_queue *queue)
{
	return vb2_is_streaming(queue) && !queue->error &&
	       (!list_empty(&queue->queued_list) ||
		queue->last_buffer_dequeued);
}

static __poll_t vv_queues_poll(struct vv_session *session)
{
	struct vb2_queue *in = &session->lanes[VV_IN].queue;
	struct vb2_queue *out = &session->lanes[VV_OUT].queue;
	__poll_t found = 0;
	bool waits;

	mutex_lock(&session->lock);
	/*
	 * A decoder's program waits for the header with the capture queue
	 * not set up yet, and its coded buffers may all be back by then.
	 */
	waits = vb2_is_streaming(in) && !vb2_is_streaming(out) && !in->error;
	if (!waits && !vv_queue_is_alive(in) && !vv_queue_is_alive(out))
		found |= EPOLLERR;
	if (vv_queue_is_done(in))
		found |= EPOLLOUT | EPOLLWRNORM;
	if (vv_queue_is_done(out) || out->last_buffer_dequeued)
		found |= EPOLLIN | EPOLLRDNORM;
	mutex_unlock(&session->lock);
	return found;
}

static __poll_t vv_session_poll(struct file *file, poll_table *wait)
{
	struct vv_session *session = vv_session_of(file);
	__poll_t wanted = poll_requested_events(wait), found = 0;

	poll_wait(file, &session->lanes[VV_IN].queue.done_wq, wait);
	poll_wait(file, &session->lanes[VV_OUT].queue.done_wq, wait);
	poll_wait(file, &session->fh.wait, wait);
	if (!video_is_registered(&session->vv->node))
		return EPOLLERR | EPOLLHUP | EPOLLPRI;
	if (wanted & (EPOLLIN | EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM))
		found = vv_queues_poll(session);
	/* Last, for an event comes before the buffer that it tells of. */
	if (v4l2_event_pending(&session->fh))
		found |= EPOLLPRI;
	return found;
}

static int vv_session_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct vv_session *session = vv_session_of(file);
	unsigned long base = VV_OUT_OFFSET >> PAGE_SHIFT;

	if (vma->vm_pgoff < base)
		return vb2_mmap(&session->lanes[VV_IN].queue, vma);
	vma->vm_pgoff -= base;
	return vb2_mmap(&session->lanes[VV_OUT].queue, vma);
}

const struct v4l2_file_operations vv_file_operations = {
	.owner = THIS_MODULE,
	.open = vv_session_open,
	.release = vv_session_release,
	.poll = vv_session_poll,
	.mmap = vv_session_mmap,
	.unlocked_ioctl = video_ioctl2,
};
