// SPDX-License-Identifier: GPL-2.0
/*
 * Guest driver of a virtual camera or codec (VIRTIO 1.4, 5.22).
 *
 * The device speaks V4L2; the driver asks it for all but the buffers, which are
 * the guest's own pages where the device takes these.
 */

#include <linux/io.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "virtio_media.h"

#ifndef CONFIG_64BIT
#error "the structures of virtio-media are those of 64-bit kernels"
#endif
#ifdef __BIG_ENDIAN
#error "the structures of virtio-media are little endian"
#endif

#define KNOWN_CAPS (V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_VIDEO_CAPTURE_MPLANE | \
		    V4L2_CAP_VIDEO_M2M | V4L2_CAP_VIDEO_M2M_MPLANE | \
		    V4L2_CAP_EXT_PIX_FORMAT | V4L2_CAP_STREAMING)

static bool device_buffers;
module_param(device_buffers, bool, 0644);
MODULE_PARM_DESC(device_buffers, "Use a device's own buffers (MMAP) even where it takes the guest's pages");

static int virtio_media_start(struct virtio_media *media)
{
	struct virtqueue *vqs[2];
	unsigned long flags;
	int err;

	err = virtio_media_find_queues(media->vdev, vqs,
				       virtio_media_command_interrupt,
				       virtio_media_event_interrupt);
	if (err)
		return err;
	media->eventq = vqs[1];
	err = virtio_media_fill_events(media);
	if (err) {
		media->eventq = NULL;
		media->vdev->config->del_vqs(media->vdev);
		return err;
	}
	virtio_device_ready(media->vdev);
	spin_lock_irqsave(&media->command_lock, flags);
	media->commandq = vqs[0];
	spin_unlock_irqrestore(&media->command_lock, flags);
	virtqueue_kick(media->eventq);
	wake_up_all(&media->changed);
	return 0;
}

/* From here on nobody uses the queues; gone or just asleep. */
static void virtio_media_stop(struct virtio_media *media, bool gone)
{
	struct virtio_device *vdev = media->vdev;
	struct virtqueue *commandq;
	unsigned long flags;

	spin_lock_irqsave(&media->command_lock, flags);
	commandq = media->commandq;
	media->commandq = NULL;
	if (gone)
		media->vdev = NULL;
	spin_unlock_irqrestore(&media->command_lock, flags);
	spin_lock_irqsave(&media->event_lock, flags);
	media->eventq = NULL;
	spin_unlock_irqrestore(&media->event_lock, flags);
	virtio_media_region_forget(media);
	/* Sessions end with the reset: no page of ours is touched after it. */
	virtio_media_lose_all(media, gone);
	virtio_reset_device(vdev);
	virtio_media_abandon_commands(media, commandq);
	wake_up_all(&media->changed);
}

static void virtio_media_free(struct v4l2_device *v4l2)
{
	struct virtio_media *media = container_of(v4l2, struct virtio_media, v4l2);

	/* Not that of a codec, nor of a probe that did not come so far. */
	if (media->camera.media)
		virtio_media_queue_release(&media->camera);
	if (media->memory)
		memunmap(media->memory);
	destroy_workqueue(media->work);
	put_device(media->dma_dev);
	v4l2_device_unregister(&media->v4l2);
	mutex_destroy(&media->settings_lock);
	mutex_destroy(&media->region_lock);
	kfree(media->events);
	kfree(media);
}

static void virtio_media_read_config(struct virtio_media *media)
{
	u32 type;

	virtio_cread_le(media->vdev, struct virtio_media_config, device_caps,
			&media->caps);
	virtio_cread_le(media->vdev, struct virtio_media_config, device_type, &type);
	virtio_cread_bytes(media->vdev, offsetof(struct virtio_media_config, card),
			   media->card, sizeof_field(struct virtio_media_config, card));
	media->caps &= KNOWN_CAPS;
	/* Only cameras and codecs have buffers that this driver knows. */
	if (type != VFL_TYPE_VIDEO)
		media->caps = 0;
}

/* The guest's pages where the device takes them, or its own memory. */
static void virtio_media_choose_memory(struct virtio_media_session *session, u32 type)
{
	struct v4l2_requestbuffers request = {
		.type = type,
		.memory = V4L2_MEMORY_USERPTR,
	};
	struct v4l2_create_buffers create = { .memory = V4L2_MEMORY_MMAP };
	struct virtio_media *media = session->media;

	if (!virtio_get_shm_region(media->vdev, &media->region, VIRTIO_MEDIA_REGION) ||
	    !media->region.len)
		return;
	if (!device_buffers &&
	    virtio_media_ioctl_once(session, VIDIOC_REQBUFS, &request) != -EINVAL)
		return;
	media->in_region = true;
	/* It also has programs' pages be ordinary memory where a CPU would not take them for it. */
	media->memory = memremap(media->region.addr, media->region.len, MEMREMAP_WB);
	v4l2_disable_ioctl(&media->video, VIDIOC_EXPBUF);
	create.format.type = type;
	virtio_media_ioctl_once(session, VIDIOC_G_FMT, &create.format);
	if (virtio_media_ioctl_once(session, VIDIOC_CREATE_BUFS, &create) == -ENOTTY)
		v4l2_disable_ioctl(&media->video, VIDIOC_CREATE_BUFS);
}

/*
 * A codec's capabilities do not say which way it codes. What the device does
 * not know at all is not to be there for programs either: they take what
 * refuses some queues for what has others.
 */
static void virtio_media_learn_codec(struct virtio_media_session *session, u32 type)
{
	struct v4l2_streamparm parm = { .type = type };
	struct v4l2_decoder_cmd decoder = { .cmd = V4L2_DEC_CMD_START };
	struct v4l2_encoder_cmd encoder = { .cmd = V4L2_ENC_CMD_START };
	struct video_device *video = &session->media->video;
	int err;

	err = virtio_media_ioctl_once(session, VIDIOC_G_PARM, &parm);
	if (err == -ENOTTY) {
		v4l2_disable_ioctl(video, VIDIOC_G_PARM);
		v4l2_disable_ioctl(video, VIDIOC_S_PARM);
		v4l2_disable_ioctl(video, VIDIOC_ENUM_FRAMEINTERVALS);
	} else if (err) {
		/* Who is silent or broken now would only be waited for again. */
		return;
	}
	err = virtio_media_ioctl_once(session, VIDIOC_TRY_DECODER_CMD, &decoder);
	if (err == -ENOTTY) {
		v4l2_disable_ioctl(video, VIDIOC_DECODER_CMD);
		v4l2_disable_ioctl(video, VIDIOC_TRY_DECODER_CMD);
	} else if (err) {
		return;
	}
	err = virtio_media_ioctl_once(session, VIDIOC_TRY_ENCODER_CMD, &encoder);
	if (err == -ENOTTY) {
		v4l2_disable_ioctl(video, VIDIOC_ENCODER_CMD);
		v4l2_disable_ioctl(video, VIDIOC_TRY_ENCODER_CMD);
	}
}

/* The queue of a camera, and that of a codec which programs fill. */
static u32 virtio_media_first_type(const struct virtio_media *media)
{
	if (media->caps & V4L2_CAP_VIDEO_M2M_MPLANE)
		return V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE;
	if (media->caps & V4L2_CAP_VIDEO_M2M)
		return V4L2_BUF_TYPE_VIDEO_OUTPUT;
	if (media->caps & V4L2_CAP_VIDEO_CAPTURE_MPLANE)
		return V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE;
	return V4L2_BUF_TYPE_VIDEO_CAPTURE;
}

/* What only the device knows. One that tells nothing is taken as most are. */
static void virtio_media_learn(struct virtio_media *media)
{
	u32 type = virtio_media_first_type(media);
	struct virtio_media_session *session;

	session = kzalloc_obj(*session);
	if (!session)
		return;
	session->media = media;
	if (virtio_media_open_session(media, &session->id))
		goto out_free;
	virtio_media_choose_memory(session, type);
	if (virtio_media_is_codec(media))
		virtio_media_learn_codec(session, type);
	virtio_media_close_session(media, session->id);
out_free:
	kfree(session);
}

static int virtio_media_register(struct virtio_media *media)
{
	struct video_device *video = &media->video;

	strscpy(video->name, media->card, sizeof(video->name));
	video->v4l2_dev = &media->v4l2;
	video->fops = &virtio_media_fops;
	video->ioctl_ops = &virtio_media_ioctl_ops;
	video->release = video_device_release_empty;
	video->device_caps = media->caps;
	video->vfl_dir = virtio_media_is_codec(media) ? VFL_DIR_M2M : VFL_DIR_RX;
	if (virtio_media_is_codec(media)) {
		v4l2_disable_ioctl(video, VIDIOC_G_INPUT);
		v4l2_disable_ioctl(video, VIDIOC_S_INPUT);
		v4l2_disable_ioctl(video, VIDIOC_ENUMINPUT);
	} else {
		v4l2_disable_ioctl(video, VIDIOC_DECODER_CMD);
		v4l2_disable_ioctl(video, VIDIOC_TRY_DECODER_CMD);
		v4l2_disable_ioctl(video, VIDIOC_ENCODER_CMD);
		v4l2_disable_ioctl(video, VIDIOC_TRY_ENCODER_CMD);
		v4l2_disable_ioctl(video, VIDIOC_G_SELECTION);
		v4l2_disable_ioctl(video, VIDIOC_S_SELECTION);
	}
	video_set_drvdata(video, media);
	return video_register_device(video, VFL_TYPE_VIDEO, -1);
}

static int virtio_media_probe(struct virtio_device *vdev)
{
	struct virtio_media *media;
	int err = -ENOMEM;

	media = kzalloc_obj(*media);
	if (!media)
		return -ENOMEM;
	media->events = kcalloc(VIRTIO_MEDIA_EVENTS, sizeof(*media->events), GFP_KERNEL);
	media->work = alloc_workqueue("virtio_media", WQ_UNBOUND | WQ_FREEZABLE, 0);
	if (!media->events || !media->work)
		goto err_free;
	media->vdev = vdev;
	vdev->priv = media;
	spin_lock_init(&media->command_lock);
	spin_lock_init(&media->event_lock);
	spin_lock_init(&media->sessions_lock);
	mutex_init(&media->settings_lock);
	mutex_init(&media->region_lock);
	init_rwsem(&media->placing);
	INIT_LIST_HEAD(&media->mappings);
	INIT_LIST_HEAD(&media->sessions);
	init_waitqueue_head(&media->changed);
	media->has_dma_quirk = virtio_has_dma_quirk(vdev);
	virtio_media_read_config(media);
	if (!(media->caps & (KNOWN_CAPS & ~(V4L2_CAP_EXT_PIX_FORMAT | V4L2_CAP_STREAMING)))) {
		dev_err(&vdev->dev, "neither a camera nor a codec\n");
		err = -ENODEV;
		goto err_free;
	}
	err = v4l2_device_register(&vdev->dev, &media->v4l2);
	if (err)
		goto err_free;
	/* From here on the last one who has it open frees it. */
	media->v4l2.release = virtio_media_free;
	media->dma_dev = get_device(vdev->dev.parent);
	err = virtio_media_start(media);
	if (err)
		goto err_put;
	virtio_media_learn(media);
	if (!virtio_media_is_codec(media)) {
		err = virtio_media_queue_init(&media->camera, media, NULL,
					      virtio_media_first_type(media));
		if (err)
			goto err_stop;
	}
	err = virtio_media_register(media);
	if (err)
		goto err_stop;
	return 0;

err_stop:
	virtio_media_stop(media, true);
	vdev->config->del_vqs(vdev);
err_put:
	v4l2_device_put(&media->v4l2);
	return err;

err_free:
	if (media->work)
		destroy_workqueue(media->work);
	kfree(media->events);
	kfree(media);
	return err;
}

static void virtio_media_remove(struct virtio_device *vdev)
{
	struct virtio_media *media = vdev->priv;

	virtio_media_region_leave(media);
	virtio_media_stop(media, true);
	vdev->config->del_vqs(vdev);
	v4l2_device_disconnect(&media->v4l2);
	video_unregister_device(&media->video);
	v4l2_device_put(&media->v4l2);
}

#ifdef CONFIG_PM_SLEEP
/*
 * While all devices work yet. A VMM shows the region to its other devices too,
 * and one that is stopped may not hear of what goes from it: QEMU 11.1 ends when
 * it starts such a device again.
 */
static int virtio_media_prepare(struct device *dev)
{
	struct virtio_media *media = dev_to_virtio(dev)->priv;

	/* What a codec was doing ends with its reset. */
	if (media->in_region && !virtio_media_is_codec(media))
		WRITE_ONCE(media->asleep, true);
	virtio_media_region_give_back(media, media->asleep);
	return 0;
}

/* Also where the sleep came to nothing: what came back meanwhile is missing. */
static void virtio_media_complete(struct device *dev)
{
	struct virtio_media *media = dev_to_virtio(dev)->priv;

	if (!media->asleep)
		return;
	WRITE_ONCE(media->asleep, false);
	virtio_media_lose_all(media, false);
}

static const struct dev_pm_ops virtio_media_pm = {
	.prepare = virtio_media_prepare,
	.complete = virtio_media_complete,
};

static int virtio_media_freeze(struct virtio_device *vdev)
{
	struct virtio_media *media = vdev->priv;

	virtio_media_stop(media, false);
	vdev->config->del_vqs(vdev);
	return 0;
}

static int virtio_media_restore(struct virtio_device *vdev)
{
	struct virtio_media *media = vdev->priv;
	int err;

	err = virtio_media_start(media);
	if (!err)
		virtio_media_revive_all(media);
	return err;
}
#endif

static const struct virtio_device_id virtio_media_ids[] = {
	{ VIRTIO_MEDIA_NUMBER, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, virtio_media_ids);

static struct virtio_driver virtio_media_driver = {
	.driver.name = KBUILD_MODNAME,
	.id_table = virtio_media_ids,
	.probe = virtio_media_probe,
	.remove = virtio_media_remove,
#ifdef CONFIG_PM_SLEEP
	.driver.pm = &virtio_media_pm,
	.freeze = virtio_media_freeze,
	.restore = virtio_media_restore,
#endif
};
module_virtio_driver(virtio_media_driver);

MODULE_DESCRIPTION("Cameras and codecs over virtio");
MODULE_AUTHOR("The agl-virtio authors");
MODULE_LICENSE("GPL");
