// SPDX-License-Identifier: GPL-2.0
/*
 * Says in the kernel's log what the first power capping domain's notifications say, for the bench:
 * the kernel's own powercap driver listens to none.
 */

#include <linux/err.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/scmi_protocol.h>
#include <linux/slab.h>

struct watch {
	struct device *dev;
	struct notifier_block cap;
	struct notifier_block power;
};

static const u32 domain;

static int cap_changed(struct notifier_block *nb, unsigned long event, void *data)
{
	struct watch *w = container_of(nb, struct watch, cap);
	struct scmi_powercap_cap_changed_report *report = data;

	dev_info(w->dev, "agent %u: cap %u, averaged over %u\n", report->agent_id,
		 report->power_cap, report->pai);
	return NOTIFY_OK;
}

static int power_left(struct notifier_block *nb, unsigned long event, void *data)
{
	struct watch *w = container_of(nb, struct watch, power);
	struct scmi_powercap_meas_changed_report *report = data;

	dev_info(w->dev, "power has left the range: %u\n", report->power);
	return NOTIFY_OK;
}

static int watch_probe(struct scmi_device *sdev)
{
	const struct scmi_powercap_proto_ops *ops;
	const struct scmi_handle *handle = sdev->handle;
	struct scmi_protocol_handle *ph;
	struct watch *w;
	int ret;

	ops = handle->devm_protocol_get(sdev, SCMI_PROTOCOL_POWERCAP, &ph);
	if (IS_ERR(ops))
		return PTR_ERR(ops);
	w = devm_kzalloc(&sdev->dev, sizeof(*w), GFP_KERNEL);
	if (!w)
		return -ENOMEM;
	w->dev = &sdev->dev;
	w->cap.notifier_call = cap_changed;
	w->power.notifier_call = power_left;
	/* The simulated domain's power is between 4 and 10 W. */
	ret = ops->measurements_threshold_set(ph, domain, 6500000, 7500000);
	if (ret)
		return ret;
	ret = handle->notify_ops->devm_event_notifier_register(sdev, SCMI_PROTOCOL_POWERCAP,
			SCMI_EVENT_POWERCAP_CAP_CHANGED, &domain, &w->cap);
	if (ret)
		return ret;
	return handle->notify_ops->devm_event_notifier_register(sdev, SCMI_PROTOCOL_POWERCAP,
			SCMI_EVENT_POWERCAP_MEASUREMENTS_CHANGED, &domain, &w->power);
}

static const struct scmi_device_id watch_ids[] = {
	{ SCMI_PROTOCOL_POWERCAP, "agl-scmi-watch" },
	{ }
};
MODULE_DEVICE_TABLE(scmi, watch_ids);

static struct scmi_driver watch_driver = {
	.name = "agl-scmi-watch",
	.probe = watch_probe,
	.id_table = watch_ids,
};
module_scmi_driver(watch_driver);

MODULE_DESCRIPTION("Listener to SCMI power capping notifications, for tests");
MODULE_LICENSE("GPL");
