// SPDX-License-Identifier: GPL-2.0
/*
 * A device whose frequency devfreq sets, for the bench: the guest that plays the host has none of its own.
 * It runs at the highest frequency that is allowed, as one under load does: /sys/class/devfreq/devfreq-host.
 */

#include <linux/devfreq-governor.h>
#include <linux/devfreq.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/pm_opp.h>

static const unsigned long frequencies[] = { 200000000, 400000000, 600000000 };

static struct platform_device *pdev;
static unsigned long frequency = 200000000;

static int host_target(struct device *dev, unsigned long *wanted, u32 flags)
{
	struct dev_pm_opp *opp = devfreq_recommended_opp(dev, wanted, flags);

	if (IS_ERR(opp))
		return PTR_ERR(opp);
	dev_pm_opp_put(opp);
	frequency = *wanted;
	return 0;
}

static int host_get_cur_freq(struct device *dev, unsigned long *now)
{
	*now = frequency;
	return 0;
}

static struct devfreq_dev_profile profile = {
	.initial_freq = 200000000,
	.target = host_target,
	.get_cur_freq = host_get_cur_freq,
};

static int host_get_target_freq(struct devfreq *devfreq, unsigned long *wanted)
{
	*wanted = DEVFREQ_MAX_FREQ;
	return 0;
}

static int host_event(struct devfreq *devfreq, unsigned int event, void *data)
{
	int ret = 0;

	if (event == DEVFREQ_GOV_START) {
		mutex_lock(&devfreq->lock);
		ret = update_devfreq(devfreq);
		mutex_unlock(&devfreq->lock);
	}
	return ret;
}

static struct devfreq_governor governor = {
	.name = "always-busy",
	.get_target_freq = host_get_target_freq,
	.event_handler = host_event,
};

static int __init host_init(void)
{
	struct devfreq *devfreq;
	unsigned int i;
	int ret;

	ret = devfreq_add_governor(&governor);
	if (ret)
		return ret;
	pdev = platform_device_register_simple("devfreq-host", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(pdev)) {
		ret = PTR_ERR(pdev);
		goto remove_governor;
	}
	for (i = 0; i < ARRAY_SIZE(frequencies); i++) {
		ret = dev_pm_opp_add(&pdev->dev, frequencies[i], 900000);
		if (ret)
			goto unregister;
	}
	devfreq = devm_devfreq_add_device(&pdev->dev, &profile, governor.name, NULL);
	if (IS_ERR(devfreq)) {
		ret = PTR_ERR(devfreq);
		goto unregister;
	}
	return 0;

unregister:
	dev_pm_opp_remove_all_dynamic(&pdev->dev);
	platform_device_unregister(pdev);
remove_governor:
	devfreq_remove_governor(&governor);
	return ret;
}
module_init(host_init);

static void __exit host_exit(void)
{
	platform_device_unregister(pdev);
	devfreq_remove_governor(&governor);
}
module_exit(host_exit);

MODULE_DESCRIPTION("A device under devfreq, for tests");
MODULE_LICENSE("GPL");
