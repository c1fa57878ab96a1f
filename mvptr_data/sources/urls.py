"""URLs and the chains that fsspec makes of them: `zip://a/b.jpg::https://h.org/x.zip` is a file in an archive behind another URL.

The first link with a path of its own is where the file is; what is before it (`simplecache::`) has none, what follows is how
to get there.
"""

from __future__ import annotations

from mvptr_data.storage import is_url


def own_link(uri: str) -> str:
    """The part that names the file itself: `zip://a/b.jpg` of the chain above, the whole of a path or a plain URL."""
    links, place = _links(uri)
    return links[place]


def below(folder: str, path: str) -> str:
    """The path or URL of what is at `path`, relative to a folder."""
    links, place = _links(folder)
    links[place] = f"{links[place]}{path}" if links[place].endswith("/") else f"{links[place]}/{path}"
    return "::".join(links)


def folder_of(uri: str) -> str:
    """The folder that a file is in."""
    links, place = _links(uri)
    folder = links[place].rpartition("/")[0]
    links[place] = f"{folder}/" if folder.endswith(":/") else folder
    return "::".join(links)


def _links(uri: str) -> tuple[list[str], int]:
    """The links of a chain and the place of the file's own. A local path, which may hold `::`, is one link."""
    if not is_url(uri):
        return [uri], 0
    links = uri.split("::")
    return links, next(place for place, link in enumerate(links) if "://" in link)
