// SPDX-License-Identifier: GPL-2.0
/* Sessions: one for each open file. */

#include <linux/poll.h>
#include <linux/slab.h>

#include "virtio_media.h"

static int virtio_media_open_queues(struct virtio_media_session *session)
{
	struct virtio_media *media = session->media;
	bool mplane = media->caps & V4L2_CAP_VIDEO_M2M_MPLANE;
	struct virtio_media_queue *queues;
	int err;

	if (!virtio_media_is_codec(media)) {
		session->capture = &media->camera;
		return 0;
	}
	queues = kcalloc(2, sizeof(*queues), GFP_KERNEL);
	if (!queues)
		return -ENOMEM;
	err = virtio_media_queue_init(&queues[0], media, session,
				      mplane ? V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE :
					       V4L2_BUF_TYPE_VIDEO_CAPTURE);
	if (err)
		goto err_free;
	err = virtio_media_queue_init(&queues[1], media, session,
				      mplane ? V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE :
					       V4L2_BUF_TYPE_VIDEO_OUTPUT);
	if (err)
		goto err_release;
	session->capture = &queues[0];
	session->output = &queues[1];
	return 0;

err_release:
	virtio_media_queue_release(&queues[0]);
err_free:
	kfree(queues);
	return err;
}

static void virtio_media_close_queues(struct virtio_media_session *session)
{
	struct virtio_media_queue *queue = session->capture;

	if (session->output) {
		virtio_media_queue_release(session->output);
		virtio_media_queue_release(session->capture);
		/* They were allocated together. */
		kfree(session->capture);
		return;
	}
	mutex_lock(&queue->lock);
	if (queue->session == session)
		virtio_media_queue_reset(queue);
	mutex_unlock(&queue->lock);
}

static int virtio_media_open(struct file *file)
{
	struct virtio_media *media = video_drvdata(file);
	struct virtio_media_session *session;
	unsigned long flags;
	int err;

	session = kzalloc_obj(*session);
	if (!session)
		return -ENOMEM;
	session->media = media;
	init_rwsem(&session->alive);
	INIT_WORK(&session->revive, virtio_media_revive);
	err = virtio_media_open_queues(session);
	if (err)
		goto err_free;
	err = virtio_media_open_session(media, &session->id);
	if (err)
		goto err_queues;
	v4l2_fh_init(&session->fh, &media->video);
	virtio_media_add_fh(&session->fh, file);
	spin_lock_irqsave(&media->sessions_lock, flags);
	list_add_tail(&session->list, &media->sessions);
	spin_unlock_irqrestore(&media->sessions_lock, flags);
	return 0;

err_queues:
	virtio_media_close_queues(session);
err_free:
	kfree(session);
	return err;
}

static int virtio_media_release(struct file *file)
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media *media = session->media;
	unsigned long flags;

	/* From here on nobody begins it anew. */
	spin_lock_irqsave(&media->sessions_lock, flags);
	session->closing = true;
	spin_unlock_irqrestore(&media->sessions_lock, flags);
	cancel_work_sync(&session->revive);
	/* Takes back from the device what it has. */
	virtio_media_close_queues(session);
	spin_lock_irqsave(&media->sessions_lock, flags);
	list_del(&session->list);
	spin_unlock_irqrestore(&media->sessions_lock, flags);
	virtio_media_close_session(media, session->id);
	virtio_media_del_fh(&session->fh, file);
	v4l2_fh_exit(&session->fh);
	kfree(session);
	return 0;
}

static bool virtio_media_is_done(struct vb2_queue *q)
{
	unsigned long flags;
	bool done;

	spin_lock_irqsave(&q->done_lock, flags);
	done = !list_empty(&q->done_list);
	spin_unlock_irqrestore(&q->done_lock, flags);
	return done;
}

/* Whether anything will ever come of waiting for this queue. */
static bool virtio_media_is_alive(struct vb2_queue *q)
{
	return vb2_is_streaming(q) && !q->error &&
	       (!list_empty(&q->queued_list) || q->last_buffer_dequeued);
}

/* Of a codec: bitstream can be taken, or a picture is there, or both. */
static __poll_t virtio_media_poll_codec(struct virtio_media_session *session)
{
	struct vb2_queue *output = &session->output->vb2;
	struct vb2_queue *capture = &session->capture->vb2;
	__poll_t found = 0;
	bool waits;

	mutex_lock(&session->output->lock);
	mutex_lock_nested(&session->capture->lock, SINGLE_DEPTH_NESTING);
	/*
	 * A decoder's program waits for the header with the capture queue not
	 * set up yet, and its coded buffers may all be back by then.
	 */
	waits = vb2_is_streaming(output) && !vb2_is_streaming(capture) &&
		!output->error;
	if (!waits && !virtio_media_is_alive(output) &&
	    !virtio_media_is_alive(capture))
		found |= EPOLLERR;
	if (virtio_media_is_done(output))
		found |= EPOLLOUT | EPOLLWRNORM;
	if (virtio_media_is_done(capture) || capture->last_buffer_dequeued)
		found |= EPOLLIN | EPOLLRDNORM;
	mutex_unlock(&session->capture->lock);
	mutex_unlock(&session->output->lock);
	return found;
}

static __poll_t virtio_media_poll(struct file *file, poll_table *wait)
{
	struct virtio_media_session *session = virtio_media_session(file);
	__poll_t wanted = poll_requested_events(wait), found = 0;

	/* All that may ever be waited for is, from the first call on. */
	poll_wait(file, &session->fh.wait, wait);
	if (!session->output) {
		found = vb2_core_poll(&session->capture->vb2, file, wait);
	} else {
		poll_wait(file, &session->output->vb2.done_wq, wait);
		poll_wait(file, &session->capture->vb2.done_wq, wait);
		if (wanted & (EPOLLIN | EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM))
			found = virtio_media_poll_codec(session);
		/* Its events will not come either. */
		if (READ_ONCE(session->lost))
			found |= EPOLLERR;
	}
	/* Last, for an event comes before the buffer that it tells of. */
	if (v4l2_event_pending(&session->fh))
		found |= EPOLLPRI;
	if (!video_is_registered(&session->media->video))
		found |= EPOLLERR | EPOLLHUP;
	return found;
}

/* Capture buffers of a codec lie above this, as with other codecs of Linux. */
static int virtio_media_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct virtio_media_session *session = virtio_media_session(file);
	unsigned long first = VIRTIO_MEDIA_CAPTURE_OFFSET >> PAGE_SHIFT;

	if (!session->output)
		return vb2_mmap(&session->capture->vb2, vma);
	if (vma->vm_pgoff < first)
		return vb2_mmap(&session->output->vb2, vma);
	vma->vm_pgoff -= first;
	return vb2_mmap(&session->capture->vb2, vma);
}

const struct v4l2_file_operations virtio_media_fops = {
	.owner = THIS_MODULE,
	.open = virtio_media_open,
	.release = virtio_media_release,
	.poll = virtio_media_poll,
	.mmap = virtio_media_mmap,
	.unlocked_ioctl = video_ioctl2,
};
