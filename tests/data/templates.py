"""Chat templates of the kinds that models come with, in our own words."""

CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SWITCH = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
"""A finished turn shows an empty block, and a variable closes it at the prompt (as Qwen3's does)."""
OPENED = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'].split('</think>')[-1] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
)
"""The prompt opens a block, and finished turns show none (as R1's does)."""
OPENED_AND_SHOWN = OPENED.replace(
    "'<|' + m['role'] + '|>' + m['content']",
    "'<|' + m['role'] + '|>' + ('<reason>\n\n</reason>\n\n' if m['role'] == 'assistant' and loop.last else '') "
    "+ m['content']",
).replace("<think>", "<reason>")
CHANNELS = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] }}{% if m['role'] == 'assistant' %}"
    "{% if m['thinking'] and loop.last %}"
    "{{ '<|channel|>analysis<|message|>' + m['thinking'] + '<|end|><|start|>assistant' }}{% endif %}"
    "{{ '<|channel|>final<|message|>' + m['content'] + '<|return|>' }}"
    "{% else %}{{ '<|message|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
"""Trace and answer are channels, and a message carries its trace (as gpt-oss's does)."""
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}" + CHAT
)
DATED = "{{ '<|system|>Today: ' + strftime_now('%d %b %Y, %H:%M') + '</s>' }}" + CHAT
