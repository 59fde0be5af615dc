"""DeepL: keys of the free plan end in ":fx" and have an address of their own."""

from __future__ import annotations

from aigw.errors import ConfigError
from aigw.providers.compatible import CompatibleProvider, Given

_FREE = ":fx"


class DeepL(CompatibleProvider):
    """Made by `compatible.build`."""

    @classmethod
    def fitted(cls, given: Given) -> Given:
        if given.base_url or not given.keys:
            return given
        plans = {key.endswith(_FREE) for key in given.keys}
        if len(plans) > 1:
            raise ConfigError(
                "keys of DeepL's free plan (ending in :fx) and others have different addresses: make a provider of each",
                key=f"{given.place}.keys",
            )
        return given if plans == {True} else given._replace(base_url=given.row.other_urls["pro"])
