# SPDX-License-Identifier: Apache-2.0
"""The guest's cards, and what the demo shows of each."""
