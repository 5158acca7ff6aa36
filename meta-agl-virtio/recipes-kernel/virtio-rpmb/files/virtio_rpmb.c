// SPDX-License-Identifier: GPL-2.0
/*
 * Replay-protected memory block of a virtual machine (VIRTIO 1.4, 5.12).
 *
 * The device takes the frames of an eMMC's RPMB partition. They reach it in
 * two ways: other parts of the kernel (OP-TEE) use the kernel's RPMB class,
 * where there is one (6.12 and later); programs use /dev/virtio_rpmbN, which
 * takes MMC_IOC_MULTI_CMD like the partition's own character device does, so
 * that what was written for an eMMC (mmc-utils, tee-supplicant) works as it is.
 *
 * A request and the wish for its result are one descriptor chain, so nobody
 * else's request comes between them. A request owns its memory: a program that
 * is killed while it waits leaves that to the device, and the interrupt frees
 * it.
 */

#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/mmc/ioctl.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#ifdef VIRTIO_RPMB_HAS_CLASS
#include <linux/rpmb.h>
#endif

/* Before 7.0. */
#ifndef kzalloc_obj
#define kzalloc_obj(object) kzalloc(sizeof(object), GFP_KERNEL)
#endif

#define VIRTIO_ID_RPMB_DEVICE	28
#define RPMB_FRAME_SIZE		512

/* The commands of an eMMC that carry frames. */
#define MMC_READ_FRAMES		18
#define MMC_WRITE_FRAMES	25

enum virtio_rpmb_request_type {
	REQUEST_PROGRAM_KEY = 1,
	REQUEST_GET_WRITE_COUNTER = 2,
	REQUEST_DATA_WRITE = 3,
	REQUEST_DATA_READ = 4,
	REQUEST_RESULT_READ = 5,
};

struct virtio_rpmb_config {
	__u8 capacity;		/* in units of 128 KiB */
	__u8 max_wr_cnt;	/* blocks of 256 bytes; 0: any number */
	__u8 max_rd_cnt;
} __packed;

struct virtio_rpmb_frame {
	__u8 stuff[196];
	__u8 key_mac[32];
	__u8 data[256];
	__u8 nonce[16];
	__be32 write_counter;
	__be16 address;
	__be16 block_count;
	__be16 result;
	__be16 req_resp;
} __packed;

struct virtio_rpmb {
	struct kref users;
	/* Guards what follows, up to the wait queue. */
	spinlock_t lock;
	struct virtio_device *vdev;	/* NULL once it is gone */
	struct virtqueue *vq;		/* NULL while it sleeps */
	unsigned int in_flight;
	/* Woken when there is room, the device wakes up, or is gone. */
	wait_queue_head_t changed;

	struct virtio_rpmb_config config;
	unsigned int most_frames;	/* that a chain has room for */
	int number;
	char name[24];
	struct miscdevice misc;
	struct rpmb_dev *class_device;
};

struct virtio_rpmb_request {
	struct kref users;
	struct completion done;
	int status;
	unsigned int out;	/* frames to the device */
	unsigned int in;	/* and from it */
	unsigned int written;	/* bytes that it wrote */
	struct virtio_rpmb_frame *frames;
};

static DEFINE_IDA(virtio_rpmb_numbers);
/* Guards a device's priv: who has it from the kernel's class may come late. */
static DEFINE_MUTEX(virtio_rpmb_gate);

static void virtio_rpmb_release(struct kref *users)
{
	kfree(container_of(users, struct virtio_rpmb, users));
}

static void virtio_rpmb_put(struct virtio_rpmb *rpmb)
{
	kref_put(&rpmb->users, virtio_rpmb_release);
}

/* Let users of the kernel's class find the device, or (NULL) not any more. */
static void virtio_rpmb_publish(struct virtio_device *vdev,
				struct virtio_rpmb *rpmb)
{
	mutex_lock(&virtio_rpmb_gate);
	vdev->priv = rpmb;
	mutex_unlock(&virtio_rpmb_gate);
}

static void virtio_rpmb_request_free(struct kref *users)
{
	struct virtio_rpmb_request *request =
		container_of(users, struct virtio_rpmb_request, users);

	/* A request to program the key has it. */
	kfree_sensitive(request->frames);
	kfree(request);
}

static void virtio_rpmb_request_put(struct virtio_rpmb_request *request)
{
	kref_put(&request->users, virtio_rpmb_request_free);
}

static struct virtio_rpmb_request *
virtio_rpmb_request_new(struct virtio_rpmb *rpmb, unsigned int out,
			unsigned int in)
{
	struct virtio_rpmb_request *request;

	if (!out || !in || out > rpmb->most_frames ||
	    in > rpmb->most_frames - out)
		return ERR_PTR(-EMSGSIZE);
	request = kzalloc_obj(*request);
	if (!request)
		return ERR_PTR(-ENOMEM);
	request->frames = kcalloc(out + in, RPMB_FRAME_SIZE, GFP_KERNEL);
	if (!request->frames) {
		kfree(request);
		return ERR_PTR(-ENOMEM);
	}
	kref_init(&request->users);
	init_completion(&request->done);
	request->out = out;
	request->in = in;
	return request;
}

/* The device, or its end, gives a request back. Called with the lock held. */
static void virtio_rpmb_finish(struct virtio_rpmb *rpmb,
			       struct virtio_rpmb_request *request, int status)
{
	rpmb->in_flight--;
	request->status = status;
	complete(&request->done);
	virtio_rpmb_request_put(request);
}

static void virtio_rpmb_interrupt(struct virtqueue *vq)
{
	struct virtio_rpmb *rpmb = vq->vdev->priv;
	struct virtio_rpmb_request *request;
	unsigned long flags;
	unsigned int len;

	spin_lock_irqsave(&rpmb->lock, flags);
	do {
		virtqueue_disable_cb(vq);
		while ((request = virtqueue_get_buf(vq, &len))) {
			request->written = min_t(unsigned int, len,
						 request->in * RPMB_FRAME_SIZE);
			virtio_rpmb_finish(rpmb, request, 0);
		}
	} while (!virtqueue_enable_cb(vq));
	spin_unlock_irqrestore(&rpmb->lock, flags);
	wake_up_all(&rpmb->changed);
}

/* -ENOSPC: later; -EHOSTDOWN: it sleeps, later too. */
static int virtio_rpmb_submit(struct virtio_rpmb *rpmb,
			      struct virtio_rpmb_request *request,
			      struct scatterlist *sg)
{
	struct scatterlist *out = sg, *in = sg + request->out;
	struct scatterlist *sgs[2] = { out, in };
	unsigned int i;
	unsigned long flags;
	int err;

	/* Each frame in a buffer of its own, as the standard has it. */
	sg_init_table(out, request->out);
	for (i = 0; i < request->out; i++)
		sg_set_buf(&out[i], &request->frames[i], RPMB_FRAME_SIZE);
	sg_init_table(in, request->in);
	for (i = 0; i < request->in; i++)
		sg_set_buf(&in[i], &request->frames[request->out + i],
			   RPMB_FRAME_SIZE);

	spin_lock_irqsave(&rpmb->lock, flags);
	if (!rpmb->vdev) {
		err = -ENODEV;
	} else if (!rpmb->vq) {
		err = -EHOSTDOWN;
	} else {
		err = virtqueue_add_sgs(rpmb->vq, sgs, 1, 1, request,
					GFP_ATOMIC);
		if (!err) {
			kref_get(&request->users);
			rpmb->in_flight++;
			virtqueue_kick(rpmb->vq);
		}
	}
	spin_unlock_irqrestore(&rpmb->lock, flags);
	return err;
}

/* Whether it is worth trying again: room, awake, or gone for good. */
static bool virtio_rpmb_may_submit(struct virtio_rpmb *rpmb,
				   struct virtio_rpmb_request *request)
{
	unsigned long flags;
	bool may;

	spin_lock_irqsave(&rpmb->lock, flags);
	may = !rpmb->vdev ||
	      (rpmb->vq && (!rpmb->in_flight ||
			    rpmb->vq->num_free >= request->out + request->in));
	spin_unlock_irqrestore(&rpmb->lock, flags);
	return may;
}

/* Send a request and wait for its answer. */
static int virtio_rpmb_exchange(struct virtio_rpmb *rpmb,
				struct virtio_rpmb_request *request)
{
	struct scatterlist *sg;
	int err;

	sg = kmalloc_array(request->out + request->in, sizeof(*sg), GFP_KERNEL);
	if (!sg)
		return -ENOMEM;
	while ((err = virtio_rpmb_submit(rpmb, request, sg)) != 0) {
		if (err != -ENOSPC && err != -EHOSTDOWN)
			break;
		err = wait_event_killable(rpmb->changed,
					  virtio_rpmb_may_submit(rpmb, request));
		if (err)
			break;
	}
	kfree(sg);
	if (err)
		return err;
	/* Killed or not, what was sent may be done: as with an eMMC. */
	err = wait_for_completion_killable(&request->done);
	if (err)
		return err;
	if (request->status)
		return request->status;
	/* A device that cannot answer at all gives the buffers back empty. */
	return request->written < RPMB_FRAME_SIZE ? -EIO : 0;
}

/*
 * What an eMMC is told by its commands stands in the frames of a virtio device:
 * how many blocks to read, and that all else is one. None of these frames is
 * signed. Those of a write are, and have it already.
 */
static void virtio_rpmb_fill_in(struct virtio_rpmb_request *request)
{
	struct virtio_rpmb_frame *first = &request->frames[0];

	if (first->block_count)
		return;
	switch (be16_to_cpu(first->req_resp)) {
	case REQUEST_DATA_READ:
		first->block_count = cpu_to_be16(request->in);
		break;
	case REQUEST_PROGRAM_KEY:
	case REQUEST_GET_WRITE_COUNTER:
		first->block_count = cpu_to_be16(1);
		break;
	}
}

static void virtio_rpmb_ask_for_result(struct virtio_rpmb_frame *frame)
{
	memset(frame, 0, sizeof(*frame));
	frame->block_count = cpu_to_be16(1);
	frame->req_resp = cpu_to_be16(REQUEST_RESULT_READ);
}

static struct virtio_rpmb_frame *
virtio_rpmb_answer(struct virtio_rpmb_request *request)
{
	return request->frames + request->out;
}

/* ---- the kernel's RPMB class ---- */

#ifdef VIRTIO_RPMB_HAS_CLASS

static int virtio_rpmb_route(struct virtio_rpmb *rpmb, u8 *req,
			     unsigned int req_len, u8 *resp,
			     unsigned int resp_len)
{
	unsigned int out = req_len / RPMB_FRAME_SIZE, in = resp_len / RPMB_FRAME_SIZE;
	struct virtio_rpmb_request *request;
	const struct virtio_rpmb_frame *first;
	bool wants_result;
	int err;

	if (!out || !in || req_len % RPMB_FRAME_SIZE || resp_len % RPMB_FRAME_SIZE)
		return -EINVAL;
	first = (const struct virtio_rpmb_frame *)req;
	switch (be16_to_cpu(first->req_resp)) {
	case REQUEST_PROGRAM_KEY:
		if (out != 1 || in != 1)
			return -EINVAL;
		wants_result = true;
		break;
	case REQUEST_DATA_WRITE:
		if (in != 1)
			return -EINVAL;
		wants_result = true;
		break;
	case REQUEST_GET_WRITE_COUNTER:
		if (out != 1 || in != 1)
			return -EINVAL;
		wants_result = false;
		break;
	case REQUEST_DATA_READ:
		if (out != 1)
			return -EINVAL;
		wants_result = false;
		break;
	default:
		return -EINVAL;
	}
	request = virtio_rpmb_request_new(rpmb, out + wants_result, in);
	if (IS_ERR(request))
		return PTR_ERR(request);
	memcpy(request->frames, req, req_len);
	virtio_rpmb_fill_in(request);
	if (wants_result)
		virtio_rpmb_ask_for_result(&request->frames[out]);
	err = virtio_rpmb_exchange(rpmb, request);
	if (!err)
		memcpy(resp, virtio_rpmb_answer(request), resp_len);
	virtio_rpmb_request_put(request);
	return err;
}

/* The class does not keep its users from coming after the driver has gone. */
static int virtio_rpmb_route_frames(struct device *dev, u8 *req,
				    unsigned int req_len, u8 *resp,
				    unsigned int resp_len)
{
	struct virtio_device *vdev = dev_to_virtio(dev);
	struct virtio_rpmb *rpmb;
	int err;

	mutex_lock(&virtio_rpmb_gate);
	rpmb = vdev->priv;
	if (rpmb)
		kref_get(&rpmb->users);
	mutex_unlock(&virtio_rpmb_gate);
	if (!rpmb)
		return -ENODEV;
	err = virtio_rpmb_route(rpmb, req, req_len, resp, resp_len);
	virtio_rpmb_put(rpmb);
	return err;
}

/*
 * Keys are derived from this. A virtio device has no identity of its own, so it
 * is the device's number among those of this guest. It goes to the last byte of
 * a card's serial number: OP-TEE takes bytes 9 and 15, a card's revision and
 * checksum, for zero, and two devices must not get the same key.
 */
static int virtio_rpmb_register(struct virtio_rpmb *rpmb)
{
	u8 id[16] = "AGL virtio-rpmb";
	struct rpmb_descr descr = {
		/* The class knows no other that has these frames. */
		.type = RPMB_TYPE_EMMC,
		.route_frames = virtio_rpmb_route_frames,
		.dev_id = id,
		.dev_id_len = sizeof(id),
		.capacity = rpmb->config.capacity,
	};
	struct rpmb_dev *class_device;
	unsigned int blocks;

	id[13] ^= rpmb->number;
	blocks = rpmb->config.max_wr_cnt ? : rpmb->most_frames - 2;
	/* In sectors of 512 bytes: who uses it, doubles it. */
	descr.reliable_wr_count = max(blocks / 2, 1U);
	class_device = rpmb_dev_register(&rpmb->vdev->dev, &descr);
	if (IS_ERR(class_device))
		return PTR_ERR(class_device);
	rpmb->class_device = class_device;
	return 0;
}

static void virtio_rpmb_unregister(struct virtio_rpmb *rpmb)
{
	if (rpmb->class_device)
		rpmb_dev_unregister(rpmb->class_device);
}

#else

static int virtio_rpmb_register(struct virtio_rpmb *rpmb)
{
	return 0;
}

static void virtio_rpmb_unregister(struct virtio_rpmb *rpmb)
{
}

#endif

/* ---- the character device ---- */

static int virtio_rpmb_open(struct inode *inode, struct file *file)
{
	struct miscdevice *misc = file->private_data;
	struct virtio_rpmb *rpmb = container_of(misc, struct virtio_rpmb, misc);

	/* misc_deregister() waits for us. */
	kref_get(&rpmb->users);
	file->private_data = rpmb;
	return nonseekable_open(inode, file);
}

static int virtio_rpmb_close(struct inode *inode, struct file *file)
{
	virtio_rpmb_put(file->private_data);
	return 0;
}

/*
 * A sequence is: frames to the device; the wish for the result, after a write
 * or the programming of the key; the answer.
 */
static int virtio_rpmb_check_sequence(const struct mmc_ioc_cmd *cmds,
				      unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		bool last = i == count - 1;

		if (cmds[i].blksz != RPMB_FRAME_SIZE || !cmds[i].blocks ||
		    cmds[i].is_acmd || !cmds[i].write_flag != last ||
		    cmds[i].opcode != (last ? MMC_READ_FRAMES : MMC_WRITE_FRAMES))
			return -EINVAL;
	}
	if (count == 3 && (cmds[1].blocks != 1 || cmds[2].blocks != 1))
		return -EINVAL;
	return 0;
}

static int virtio_rpmb_sequence(struct virtio_rpmb *rpmb,
				const struct mmc_ioc_cmd *cmds,
				unsigned int count)
{
	bool wants_result = count == 3;
	const struct mmc_ioc_cmd *answer = &cmds[count - 1];
	unsigned int out = cmds[0].blocks, in = answer->blocks;
	struct virtio_rpmb_request *request;
	int err;

	if (out > rpmb->most_frames || in > rpmb->most_frames)
		return -EMSGSIZE;
	request = virtio_rpmb_request_new(rpmb, out + wants_result, in);
	if (IS_ERR(request))
		return PTR_ERR(request);
	err = -EFAULT;
	if (copy_from_user(request->frames, u64_to_user_ptr(cmds[0].data_ptr),
			   out * RPMB_FRAME_SIZE))
		goto out_put;
	virtio_rpmb_fill_in(request);
	if (wants_result) {
		struct virtio_rpmb_frame *wish = &request->frames[out];

		if (copy_from_user(wish, u64_to_user_ptr(cmds[1].data_ptr),
				   RPMB_FRAME_SIZE))
			goto out_put;
		err = -EINVAL;
		if (be16_to_cpu(wish->req_resp) != REQUEST_RESULT_READ)
			goto out_put;
		virtio_rpmb_ask_for_result(wish);
	}
	err = virtio_rpmb_exchange(rpmb, request);
	/* What the device did not write is zeros. */
	if (!err && copy_to_user(u64_to_user_ptr(answer->data_ptr),
				 virtio_rpmb_answer(request), in * RPMB_FRAME_SIZE))
		err = -EFAULT;
out_put:
	virtio_rpmb_request_put(request);
	return err;
}

static long virtio_rpmb_ioctl(struct file *file, unsigned int cmd,
			      unsigned long arg)
{
	struct virtio_rpmb *rpmb = file->private_data;
	struct mmc_ioc_multi_cmd __user *user = (void __user *)arg;
	struct mmc_ioc_cmd cmds[3];
	u64 count;
	int err;

	if (cmd != MMC_IOC_MULTI_CMD)
		return -ENOTTY;
	if (copy_from_user(&count, &user->num_of_cmds, sizeof(count)))
		return -EFAULT;
	if (count != 2 && count != 3)
		return -EINVAL;
	if (copy_from_user(cmds, user->cmds, array_size(count, sizeof(cmds[0]))))
		return -EFAULT;
	err = virtio_rpmb_check_sequence(cmds, count);
	return err ?: virtio_rpmb_sequence(rpmb, cmds, count);
}

static const struct file_operations virtio_rpmb_operations = {
	.owner = THIS_MODULE,
	.open = virtio_rpmb_open,
	.release = virtio_rpmb_close,
	.unlocked_ioctl = virtio_rpmb_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct virtio_rpmb *virtio_rpmb_of(struct device *dev)
{
	struct miscdevice *misc = dev_get_drvdata(dev);

	return container_of(misc, struct virtio_rpmb, misc);
}

static ssize_t capacity_show(struct device *dev, struct device_attribute *attr,
			     char *text)
{
	return sysfs_emit(text, "%u\n",
			  virtio_rpmb_of(dev)->config.capacity * 128U * 1024U);
}
static DEVICE_ATTR_RO(capacity);

static ssize_t max_write_blocks_show(struct device *dev,
				     struct device_attribute *attr, char *text)
{
	return sysfs_emit(text, "%u\n", virtio_rpmb_of(dev)->config.max_wr_cnt);
}
static DEVICE_ATTR_RO(max_write_blocks);

static ssize_t max_read_blocks_show(struct device *dev,
				    struct device_attribute *attr, char *text)
{
	return sysfs_emit(text, "%u\n", virtio_rpmb_of(dev)->config.max_rd_cnt);
}
static DEVICE_ATTR_RO(max_read_blocks);

static struct attribute *virtio_rpmb_attrs[] = {
	&dev_attr_capacity.attr,
	&dev_attr_max_write_blocks.attr,
	&dev_attr_max_read_blocks.attr,
	NULL
};
ATTRIBUTE_GROUPS(virtio_rpmb);

/* ---- life ---- */

static int virtio_rpmb_start(struct virtio_rpmb *rpmb)
{
	struct virtqueue *vq;
	unsigned long flags;

	vq = virtio_find_single_vq(rpmb->vdev, virtio_rpmb_interrupt,
				   "requestq");
	if (IS_ERR(vq))
		return PTR_ERR(vq);
	rpmb->most_frames = min_t(unsigned int, virtqueue_get_vring_size(vq),
				  MMC_IOC_MAX_BYTES / RPMB_FRAME_SIZE);
	virtio_device_ready(rpmb->vdev);
	spin_lock_irqsave(&rpmb->lock, flags);
	rpmb->vq = vq;
	spin_unlock_irqrestore(&rpmb->lock, flags);
	wake_up_all(&rpmb->changed);
	return 0;
}

/* Take the queue away from who would send; what is in flight stays so. */
static struct virtqueue *virtio_rpmb_stop(struct virtio_rpmb *rpmb, bool gone)
{
	struct virtqueue *vq;
	unsigned long flags;

	spin_lock_irqsave(&rpmb->lock, flags);
	vq = rpmb->vq;
	rpmb->vq = NULL;
	if (gone)
		rpmb->vdev = NULL;
	spin_unlock_irqrestore(&rpmb->lock, flags);
	wake_up_all(&rpmb->changed);
	return vq;
}

/* The device is reset: what it had is nobody's any more. */
static void virtio_rpmb_abandon(struct virtio_rpmb *rpmb, struct virtqueue *vq)
{
	struct virtio_rpmb_request *request;
	unsigned long flags;

	spin_lock_irqsave(&rpmb->lock, flags);
	while (vq && (request = virtqueue_detach_unused_buf(vq)))
		virtio_rpmb_finish(rpmb, request, -ENODEV);
	spin_unlock_irqrestore(&rpmb->lock, flags);
}

/* From here on everybody gets -ENODEV, who waits included. */
static void virtio_rpmb_end(struct virtio_device *vdev)
{
	struct virtio_rpmb *rpmb = vdev->priv;
	struct virtqueue *vq = virtio_rpmb_stop(rpmb, true);

	virtio_reset_device(vdev);
	virtio_rpmb_abandon(rpmb, vq);
}

static int virtio_rpmb_probe(struct virtio_device *vdev)
{
	struct virtio_rpmb *rpmb;
	int err;

	rpmb = kzalloc_obj(*rpmb);
	if (!rpmb)
		return -ENOMEM;
	rpmb->number = ida_alloc_max(&virtio_rpmb_numbers, U8_MAX, GFP_KERNEL);
	if (rpmb->number < 0) {
		err = rpmb->number;
		kfree(rpmb);
		return err;
	}
	kref_init(&rpmb->users);
	spin_lock_init(&rpmb->lock);
	init_waitqueue_head(&rpmb->changed);
	rpmb->vdev = vdev;
	virtio_rpmb_publish(vdev, rpmb);
	virtio_cread(vdev, struct virtio_rpmb_config, capacity,
		     &rpmb->config.capacity);
	virtio_cread(vdev, struct virtio_rpmb_config, max_wr_cnt,
		     &rpmb->config.max_wr_cnt);
	virtio_cread(vdev, struct virtio_rpmb_config, max_rd_cnt,
		     &rpmb->config.max_rd_cnt);
	if (rpmb->config.capacity > 0x80) {
		dev_err(&vdev->dev, "a capacity of %u units cannot be\n",
			rpmb->config.capacity);
		err = -EINVAL;
		goto err_put;
	}
	err = virtio_rpmb_start(rpmb);
	if (err)
		goto err_put;
	snprintf(rpmb->name, sizeof(rpmb->name), "virtio_rpmb%d", rpmb->number);
	rpmb->misc.minor = MISC_DYNAMIC_MINOR;
	rpmb->misc.name = rpmb->name;
	rpmb->misc.fops = &virtio_rpmb_operations;
	rpmb->misc.groups = virtio_rpmb_groups;
	rpmb->misc.parent = &vdev->dev;
	rpmb->misc.mode = 0600;
	err = misc_register(&rpmb->misc);
	if (err)
		goto err_stop;
	err = virtio_rpmb_register(rpmb);
	if (err)
		goto err_misc;
	return 0;

err_misc:
	misc_deregister(&rpmb->misc);
err_stop:
	virtio_rpmb_end(vdev);
	vdev->config->del_vqs(vdev);
err_put:
	virtio_rpmb_publish(vdev, NULL);
	ida_free(&virtio_rpmb_numbers, rpmb->number);
	virtio_rpmb_put(rpmb);
	return err;
}

static void virtio_rpmb_remove(struct virtio_device *vdev)
{
	struct virtio_rpmb *rpmb = vdev->priv;

	virtio_rpmb_end(vdev);
	virtio_rpmb_unregister(rpmb);
	misc_deregister(&rpmb->misc);
	vdev->config->del_vqs(vdev);
	virtio_rpmb_publish(vdev, NULL);
	/* Who still has it open needs no name any more. */
	ida_free(&virtio_rpmb_numbers, rpmb->number);
	virtio_rpmb_put(rpmb);
}

#ifdef CONFIG_PM_SLEEP
static bool virtio_rpmb_is_idle(struct virtio_rpmb *rpmb)
{
	unsigned long flags;
	bool idle;

	spin_lock_irqsave(&rpmb->lock, flags);
	idle = !rpmb->in_flight;
	spin_unlock_irqrestore(&rpmb->lock, flags);
	return idle;
}

static int virtio_rpmb_freeze(struct virtio_device *vdev)
{
	struct virtio_rpmb *rpmb = vdev->priv;
	struct virtqueue *vq = virtio_rpmb_stop(rpmb, false);

	/* A write that is under way has an answer that must not be lost. */
	wait_event_timeout(rpmb->changed, virtio_rpmb_is_idle(rpmb), 10 * HZ);
	virtio_reset_device(vdev);
	virtio_rpmb_abandon(rpmb, vq);
	vdev->config->del_vqs(vdev);
	return 0;
}

static int virtio_rpmb_restore(struct virtio_device *vdev)
{
	return virtio_rpmb_start(vdev->priv);
}
#endif

static const struct virtio_device_id virtio_rpmb_ids[] = {
	{ VIRTIO_ID_RPMB_DEVICE, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, virtio_rpmb_ids);

static struct virtio_driver virtio_rpmb_driver = {
	.driver.name = KBUILD_MODNAME,
	.id_table = virtio_rpmb_ids,
	.probe = virtio_rpmb_probe,
	.remove = virtio_rpmb_remove,
#ifdef CONFIG_PM_SLEEP
	.freeze = virtio_rpmb_freeze,
	.restore = virtio_rpmb_restore,
#endif
};
module_virtio_driver(virtio_rpmb_driver);

MODULE_DESCRIPTION("Replay-protected memory block over virtio");
MODULE_AUTHOR("The agl-virtio authors");
MODULE_LICENSE("GPL");
