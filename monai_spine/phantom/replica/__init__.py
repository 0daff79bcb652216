"""A replica of the RSNA 2024 study: its very studies, series, instances, points and grades, shown by simulated patients.

    tables.py     what the competition's tables say of each study
    choice.py     which studies are rendered, so that what is rare is among them
    frames.py     where the slices of a sagittal series lie
    axial.py      how the slices of an axial series lie: one stack, or a block per disc
    landmarks.py  where real points lie relative to each other
    equations.py  linear equations that outvote gross errors
    fit.py        the canal that all points of a study speak for
    anatomy.py    a patient with this canal, and foramina and recesses at the points
    slices.py     stacks that can be scanned, with instance numbers
    study.py      one study
    export.py     as DICOM files and tables

Where the tables are wrong (a side swapped, a level off by one) the point is wrong in the replica too: the anatomy follows what
the other points say.
"""

from monai_spine.phantom.replica.export import write_replica

__all__ = ["write_replica"]
