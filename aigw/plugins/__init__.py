"""What speaks at the hooks. Built-in plugins use the same door as strangers' (`hooks.Plugin`); this is the list of them: the
name of their table, module and class. A module is imported when a config names it."""

from __future__ import annotations

BUILT_IN: dict[str, str] = {
    "json_answer": "aigw.plugins.json_answer:JsonAnswer",
    "mask": "aigw.plugins.mask:Mask",
    "cache": "aigw.plugins.cache:Cache",
    "guard": "aigw.plugins.guard:Guard",
    "history": "aigw.plugins.history:History",
    "ip_filter": "aigw.plugins.ip_filter:IpFilter",
    "prompt_template": "aigw.plugins.prompt_template:PromptTemplate",
    "prompt_decorator": "aigw.plugins.prompt_decorator:PromptDecorator",
    "transform": "aigw.plugins.transform:Transform",
}
