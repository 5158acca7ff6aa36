// SPDX-License-Identifier: GPL-2.0
/*
 * Video codecs of a virtual machine's host (virtio-video, draft v5): a decoder or
 * an encoder, each a stateful memory-to-memory device of V4L2.
 *
 * Here is the device's life: it is found, sleeps, is started anew when it does
 * not answer or asks for it, and goes, perhaps with programs in the middle of
 * something. Those get an error then, and never wait for ever.
 */

#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "driver.h"

#define VV_SMALLEST_CAPS	(sizeof(struct vv_wire_capabilities))

unsigned int vv_timeout_ms = 10000;
module_param_named(timeout_ms, vv_timeout_ms, uint, 0644);
MODULE_PARM_DESC(timeout_ms, "How long a command may take, in milliseconds");

/* Everybody who has something in the device: it is lost. */
static void vv_sessions_lose_streams(struct vv_device *vv)
{
	struct vv_session *session;
	unsigned long flags, id;

	spin_lock_irqsave(&vv->lock, flags);
	xa_for_each(&vv->sessions, id, session)
		vv_stream_lost_locked(session);
	spin_unlock_irqrestore(&vv->lock, flags);
}

static int vv_find_queues(struct virtio_device *vdev, struct virtqueue *vqs[])
{
#ifdef VV_HAS_QUEUE_INFO
	struct virtqueue_info infos[] = {
		{ "commandq", vv_queue_interrupt },
		{ "eventq", vv_events_interrupt },
	};

	return virtio_find_vqs(vdev, 2, vqs, infos, NULL);
#else
	vq_callback_t *callbacks[] = { vv_queue_interrupt,
				       vv_events_interrupt };
	static const char * const names[] = { "commandq", "eventq" };

	return virtio_find_vqs(vdev, 2, vqs, callbacks, names, NULL);
#endif
}

static int vv_start(struct vv_device *vv, struct virtio_device *vdev)
{
	struct virtqueue *vqs[2];
	unsigned long flags;
	int err = vv_find_queues(vdev, vqs);

	if (err)
		return err;
	virtio_device_ready(vdev);
	spin_lock_irqsave(&vv->lock, flags);
	vv->commandq = vqs[0];
	vv->eventq = vqs[1];
	vv_events_offer(vv);
	spin_unlock_irqrestore(&vv->lock, flags);
	wake_up_all(&vv->room);
	return 0;
}

/* Take the device out of use: whoever waits for it hears of it. */
static void vv_stop(struct vv_device *vv, struct virtio_device *vdev, bool gone)
{
	struct virtqueue *commandq;
	unsigned long flags;

	spin_lock_irqsave(&vv->lock, flags);
	commandq = vv->commandq;
	vv->commandq = NULL;
	vv->eventq = NULL;
	if (gone)
		vv->vdev = NULL;
	spin_unlock_irqrestore(&vv->lock, flags);
	vv_sessions_lose_streams(vv);
	virtio_reset_device(vdev);
	vv_queue_abandon(vv, commandq);
	vdev->config->del_vqs(vdev);
}

/* ---- started anew ---- */

void vv_device_misbehaves(struct vv_device *vv, const char *how)
{
	unsigned long flags;
	bool first;

	spin_lock_irqsave(&vv->lock, flags);
	first = vv->registered && vv->commandq && !vv->broken;
	if (first)
		vv->broken = true;
	spin_unlock_irqrestore(&vv->lock, flags);
	if (!first)
		return;
	v4l2_err(&vv->v4l2, "the device %s: it is started anew\n", how);
	queue_work(vv->works, &vv->restart);
}

/* Comes back when nothing is in the device any more. */
void vv_device_start_anew(struct vv_device *vv)
{
	struct virtio_device *vdev;
	int err = 0;

	mutex_lock(&vv->life);
	vdev = vv->vdev;
	if (vdev && vv->broken) {
#ifdef CONFIG_PM_SLEEP
		/* Just what is done when the machine sleeps and wakes up. */
		err = virtio_device_freeze(vdev) ?: virtio_device_restore(vdev);
#else
		vv_stop(vv, vdev, false);
		err = -EOPNOTSUPP;
#endif
		vv->broken = false;
		if (err)
			v4l2_err(&vv->v4l2, "it cannot be started: %d\n", err);
	}
	mutex_unlock(&vv->life);
}

static void vv_restart_work(struct work_struct *work)
{
	vv_device_start_anew(container_of(work, struct vv_device, restart));
}

static void vv_config_changed(struct virtio_device *vdev)
{
	struct vv_device *vv = vdev->priv;

	if (vdev->config->get_status(vdev) & VIRTIO_CONFIG_S_NEEDS_RESET)
		vv_device_misbehaves(vv, "needs a reset");
}

/* ---- found and gone ---- */

static void vv_device_release(struct v4l2_device *v4l2)
{
	struct vv_device *vv = container_of(v4l2, struct vv_device, v4l2);

	v4l2_device_unregister(&vv->v4l2);
	if (vv->works)
		destroy_workqueue(vv->works);
	vv_caps_free(vv);
	xa_destroy(&vv->sessions);
	mutex_destroy(&vv->life);
	put_device(vv->dma_dev);
	kfree(vv->events);
	kfree(vv);
}

static int vv_config_read(struct vv_device *vv, struct virtio_device *vdev)
{
	u32 version;

	virtio_cread_le(vdev, struct vv_wire_config, version, &version);
	virtio_cread_le(vdev, struct vv_wire_config, max_caps_length,
			&vv->max_caps_length);
	virtio_cread_le(vdev, struct vv_wire_config, max_resp_length,
			&vv->max_resp_length);
	if (version || vv->max_caps_length < VV_SMALLEST_CAPS ||
	    vv->max_resp_length < sizeof(struct vv_wire_header)) {
		dev_err(&vdev->dev,
			"version %u with answers of %u and %u bytes cannot be\n",
			version, vv->max_caps_length, vv->max_resp_length);
		return -EINVAL;
	}
	return 0;
}

static struct vv_device *vv_device_new(struct virtio_device *vdev)
{
	struct vv_device *vv = kzalloc_obj(*vv);

	if (!vv)
		return NULL;
	vv->events = kcalloc(VV_EVENTS, sizeof(*vv->events), GFP_KERNEL);
	vv->works = alloc_workqueue("virtio_video",
				    WQ_UNBOUND | WQ_FREEZABLE, 0);
	if (!vv->events || !vv->works) {
		if (vv->works)
			destroy_workqueue(vv->works);
		kfree(vv->events);
		kfree(vv);
		return NULL;
	}
	vv->encoder = vdev->id.device == VV_ID_ENCODER;
	vv->non_contig = virtio_has_feature(vdev, VV_F_NON_CONTIG);
	vv->physical = virtio_has_dma_quirk(vdev);
	vv->objects = vv_objects_wanted &&
		      virtio_has_feature(vdev, VV_F_VIRTIO_OBJECT);
	if (vv_objects_wanted && !vv->objects)
		dev_warn(&vdev->dev,
			 "the device knows no objects: it gets pages\n");
	vv->dma_dev = get_device(vdev->dev.parent);
	vv->vdev = vdev;
	INIT_WORK(&vv->restart, vv_restart_work);
	mutex_init(&vv->life);
	spin_lock_init(&vv->lock);
	INIT_LIST_HEAD(&vv->backlog);
	init_waitqueue_head(&vv->room);
	xa_init_flags(&vv->sessions, XA_FLAGS_ALLOC1);
	return vv;
}

static int vv_node_register(struct vv_device *vv)
{
	struct video_device *node = &vv->node;

	strscpy(node->name, vv->encoder ? "virtio-video-encoder" :
					  "virtio-video-decoder",
		sizeof(node->name));
	node->fops = &vv_file_operations;
	node->ioctl_ops = vv->encoder ? &vv_encoder_ioctls : &vv_decoder_ioctls;
	node->release = video_device_release_empty;
	node->v4l2_dev = &vv->v4l2;
	node->vfl_dir = VFL_DIR_M2M;
	node->device_caps = V4L2_CAP_VIDEO_M2M_MPLANE | V4L2_CAP_STREAMING;
	video_set_drvdata(node, vv);
	return video_register_device(node, VFL_TYPE_VIDEO, -1);
}

static int vv_probe(struct virtio_device *vdev)
{
	struct vv_device *vv;
	int err;

	if (!virtio_has_feature(vdev, VV_F_GUEST_PAGES)) {
		dev_err(&vdev->dev, "the device takes no pages of the guest\n");
		return -ENODEV;
	}
	vv = vv_device_new(vdev);
	if (!vv)
		return -ENOMEM;
	vdev->priv = vv;
	err = v4l2_device_register(&vdev->dev, &vv->v4l2);
	if (err) {
		vv_device_release(&vv->v4l2);
		return err;
	}
	vv->v4l2.release = vv_device_release;
	err = vv_config_read(vv, vdev);
	if (!err)
		err = vv_start(vv, vdev);
	if (err)
		goto err_put;
	err = vv_caps_read(vv);
	if (err) {
		dev_err(&vdev->dev, "no usable formats: %d\n", err);
		goto err_stop;
	}
	err = vv_node_register(vv);
	if (err)
		goto err_stop;
	vv->registered = true;
	return 0;

err_stop:
	vv_stop(vv, vdev, true);
err_put:
	v4l2_device_put(&vv->v4l2);
	return err;
}

static void vv_remove(struct virtio_device *vdev)
{
	struct vv_device *vv = vdev->priv;

	mutex_lock(&vv->life);
	vv_stop(vv, vdev, true);
	mutex_unlock(&vv->life);
	cancel_work_sync(&vv->restart);
	video_unregister_device(&vv->node);
	v4l2_device_disconnect(&vv->v4l2);
	/* The rest goes with the last file that is open. */
	v4l2_device_put(&vv->v4l2);
}

#ifdef CONFIG_PM_SLEEP
/* A reset is the end of all streams: there is no way to keep them over one. */
static int vv_freeze(struct virtio_device *vdev)
{
	vv_stop(vdev->priv, vdev, false);
	return 0;
}

static int vv_restore(struct virtio_device *vdev)
{
	return vv_start(vdev->priv, vdev);
}
#endif

static const struct virtio_device_id vv_ids[] = {
	{ VV_ID_DECODER, VIRTIO_DEV_ANY_ID },
	{ VV_ID_ENCODER, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, vv_ids);

static const unsigned int vv_features[] = {
	VV_F_GUEST_PAGES,
	VV_F_NON_CONTIG,
#ifdef VV_HAS_OBJECTS
	VV_F_VIRTIO_OBJECT,
#endif
};

static struct virtio_driver vv_driver = {
	.driver.name = KBUILD_MODNAME,
	.id_table = vv_ids,
	.feature_table = vv_features,
	.feature_table_size = ARRAY_SIZE(vv_features),
	.probe = vv_probe,
	.remove = vv_remove,
	.config_changed = vv_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = vv_freeze,
	.restore = vv_restore,
#endif
};
module_virtio_driver(vv_driver);

MODULE_DESCRIPTION("Video codecs over virtio");
MODULE_AUTHOR("The agl-virtio authors");
MODULE_LICENSE("GPL");
