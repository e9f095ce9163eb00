"""What is hard to read or to use in a part of a page, found in the browser: cut, pale or unnamed things."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator

CUT = """(root) => [root, ...root.querySelectorAll('*')]
    .filter((each) => each.clientWidth > 1 && each.checkVisibility() && !each.closest('svg'))
    .filter((each) => each.scrollWidth > each.clientWidth && getComputedStyle(each).display !== 'inline')
    .filter((each) => each.textContent.trim() && getComputedStyle(each).textOverflow !== 'ellipsis')
    .concat(root.getBoundingClientRect().right <= innerWidth ? [] : [root])
    .map((each) => `${each.tagName}.${each.className}`)"""
CONTRAST = """(root) => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const parts = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => {
        const linear = (each) => ((each /= 255) <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
        return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    };
    const over = (above, below, opacity) => {
        const share = (above[3] / 255) * opacity;
        return [0, 1, 2].map((each) => above[each] * share + below[each] * (1 - share)).concat(255);
    };
    const behind = (element) => {
        if (!element) return [255, 255, 255, 255];
        const colour = parts(getComputedStyle(element).backgroundColor);
        return colour[3] === 255 ? colour : over(colour, behind(element.parentElement), 1);
    };
    const opacity = (element) => (element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1);
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const pale = [];
    while (texts.nextNode()) {
        const [text, element] = [texts.currentNode.textContent, texts.currentNode.parentElement];
        if (!text.trim() || !element.checkVisibility() || element.closest('svg, [aria-hidden], :disabled')) continue;
        const back = behind(element);
        const colours = [over(parts(getComputedStyle(element).color), back, opacity(element)), back];
        const [one, other] = colours.map(light).sort((a, b) => b - a);
        const contrast = (one + 0.05) / (other + 0.05);
        if (contrast < 4.5) pale.push(`${contrast.toFixed(1)}: ${text.trim()}`);
    }
    return pale;
}"""
UNNAMED = """(root) => [...root.querySelectorAll('button, input, select, textarea')]
    .filter((each) => each.checkVisibility() && !each.getAttribute('aria-label'))
    .filter((each) => !each.title || !(each.textContent || each.labels?.length))
    .map((each) => each.outerHTML)"""


def cut(part: Locator) -> list[str]:
    """Return the elements whose content is wider than they are and does not say so by an ellipsis."""
    found: list[str] = part.evaluate(CUT)
    return found


def pale(part: Locator) -> list[str]:
    """Return the visible texts with a contrast below 4.5, each after its contrast."""
    found: list[str] = part.evaluate(CONTRAST)
    return found


def unnamed(part: Locator) -> list[str]:
    """Return the controls without a name or without a tooltip, as HTML."""
    found: list[str] = part.evaluate(UNNAMED)
    return found
