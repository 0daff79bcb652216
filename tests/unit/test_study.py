"""Finding studies and reading headers."""

from __future__ import annotations

import shutil
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_cases import AXIAL, write_slice, write_stack
from PIL import Image
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from monai_spine import archive
from monai_spine.errors import StudyError, UnreadableInputError, UnsafeArchiveError
from monai_spine.study import open_study


def _pack(folder: Path, path: Path) -> Path:
    return Path(shutil.make_archive(str(path.with_suffix("")), "zip", folder))


def test_a_nested_folder_is_one_study_of_several_series(tmp_path: Path) -> None:
    write_stack(tmp_path / "s" / "a", [0, 4, 8], SeriesDescription="SAG T2", SeriesNumber=2)
    write_stack(tmp_path / "s" / "b", [0, 4], uid="1.2.3.2", orientation=AXIAL, SeriesNumber=1)
    with open_study(tmp_path) as study:
        assert (study.study_instance_uid, study.patient_id, study.kind, study.source) == ("1.2.3", "P1", "dicom", str(tmp_path))
        assert [(series.number, len(series.instances)) for series in study.series] == [(1, 2), (2, 3)]
        assert study.series[1].description == "SAG T2"
        assert {instance.sop_instance_uid for instance in study.series[1].instances} == {f"1.2.3.1.0.{k}" for k in range(3)}


def test_a_file_needs_no_suffix_and_what_is_no_image_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    write_slice(tmp_path / "IM_0001")
    (tmp_path / "notes.dcm").write_text("no image" * 50)
    (tmp_path / "README").write_text("x")
    write_slice(tmp_path / "report.dcm", SOPInstanceUID="9.1", Modality="SR", Rows=None, Columns=None)
    write_slice(tmp_path / "ct.dcm", SOPInstanceUID="9.2", Modality="CT")
    with open_study(tmp_path) as study:
        assert [instance.path.name for instance in study.series[0].instances] == ["IM_0001"]
        reasons = {file.path: file.reason for file in study.set_aside}
    assert reasons["notes.dcm"].startswith("not DICOM")
    assert reasons["report.dcm"].startswith("no image (SR)")
    assert reasons["ct.dcm"] == "modality CT, not MR"
    assert "README" in reasons


def test_a_file_that_ends_within_its_header_is_set_aside(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm")
    write_slice(tmp_path / "cut.dcm")
    content = (tmp_path / "cut.dcm").read_bytes()
    for length in (140, 300, 400, 500, 600):
        (tmp_path / "cut.dcm").write_bytes(content[:length])
        with open_study(tmp_path) as study:
            assert [file.path for file in study.set_aside] == ["cut.dcm"]


def test_a_dicomdir_is_set_aside_as_an_index(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm")
    write_slice(tmp_path / "DICOMDIR", SOPClassUID="1.2.840.10008.1.3.10", SOPInstanceUID="9.3")
    with open_study(tmp_path) as study:
        assert study.set_aside[0].reason.startswith("a DICOMDIR")


def test_the_same_instance_twice_counts_once(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", SOPInstanceUID="7.7")
    write_slice(tmp_path / "copy.dcm", SOPInstanceUID="7.7")
    with open_study(tmp_path) as study:
        assert len(study.series[0].instances) == 1
        assert study.set_aside[0].reason.startswith("the same instance (SOPInstanceUID) as ")


def test_an_instance_that_two_series_have_may_be_a_missing_slice(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", SOPInstanceUID="7.7", SeriesInstanceUID="1.1")
    write_slice(tmp_path / "b.dcm", SOPInstanceUID="7.7", SeriesInstanceUID="1.2")
    with open_study(tmp_path) as study:
        assert study.set_aside[0].is_broken
        assert study.set_aside[0].reason.endswith("a.dcm, which belongs to another series")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_headers_read_alike_in_every_byte_order(tmp_path: Path, syntax: str) -> None:
    write_slice(tmp_path / "a.dcm", syntax=syntax, EchoTime=12.5, SeriesDescription="SAG T1", SpecificCharacterSet="ISO_IR 100")
    with open_study(tmp_path) as study:
        tags, frame = study.series[0].tags, study.series[0].instances[0].frames[0]
    assert (tags.echo_time_ms, tags.description, frame.rows, frame.pixel_spacing_mm) == (12.5, "SAG T1", 8, (0.5, 0.5))


def test_a_description_with_accents_is_read_in_its_character_set(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", SeriesDescription="Wirbelsäule T2", SpecificCharacterSet="ISO_IR 192")
    with open_study(tmp_path) as study:
        assert study.series[0].description == "Wirbelsäule T2"


def test_a_modality_that_the_header_leaves_out_is_taken_from_the_class(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", Modality=None)
    with open_study(tmp_path) as study:
        assert study.series[0].tags.modality == "MR"


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match=r"nowhere does not exist. Check the path"), open_study(tmp_path / "nowhere"):
        pass


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="is empty: there is nothing to read"), open_study(tmp_path):
        pass


def test_a_folder_without_mr_says_what_it_holds(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", Modality="CT")
    with pytest.raises(UnreadableInputError, match="holds no MR image: 1 file: modality CT, not MR"), open_study(tmp_path):
        pass


def test_a_text_file_named_dcm_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("text")
    with pytest.raises(UnreadableInputError, match="no MR image: 1 file: not DICOM"), open_study(tmp_path):
        pass
    with pytest.raises(UnreadableInputError, match="Wrong format"), open_study(tmp_path / "a.dcm"):
        pass


def test_two_patients_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", PatientID="A", StudyInstanceUID="1.1")
    write_slice(tmp_path / "b.dcm", PatientID="B", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3.2")
    with pytest.raises(StudyError, match=r"2 patients \(PatientID 'A', 'B'\).*folder of their own"), open_study(tmp_path):
        pass


def test_two_studies_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", StudyInstanceUID="1.1")
    write_slice(tmp_path / "b.dcm", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3.2")
    with pytest.raises(StudyError, match=r"2 studies .*the folder above them is then a batch"), open_study(tmp_path):
        pass


def test_a_zip_reads_as_its_folder_and_its_files_vanish_with_the_context(tmp_path: Path) -> None:
    write_stack(tmp_path / "study" / "inner", [0, 4, 8])
    with open_study(_pack(tmp_path / "study", tmp_path / "study.zip")) as study:
        path = study.series[0].instances[0].path
        assert len(study.series[0].instances) == 3
        assert path.is_file()
    assert not path.exists()


@pytest.mark.parametrize("name", ["../evil.dcm", "a/../../evil.dcm", "/etc/evil.dcm", "C:\\evil.dcm", "..\\evil.dcm"])
def test_a_zip_that_leads_outside_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(UnsafeArchiveError, match="leads outside the archive: nothing was unpacked"), open_study(path):
        pass


def test_an_encrypted_zip_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("a.dcm", b"x")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UnreadableInputError, match=r"x\.zip is encrypted .*without a password"), open_study(tmp_path / "x.zip"):
        pass


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("a.dcm", b"x")
        packed.writestr("a.dcm", b"y")
    with pytest.raises(UnreadableInputError, match=r"holds 'a\.dcm' twice"), open_study(tmp_path / "x.zip"):
        pass


def test_a_zip_within_a_zip_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("inner.zip", b"PK\x05\x06" + bytes(18))
    with pytest.raises(UnreadableInputError, match=r"no image but a zip, inner\.zip"), open_study(tmp_path / "x.zip"):
        pass


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr(entry, "/etc/passwd")
    with pytest.raises(UnsafeArchiveError, match="holds a link, 'link'"), open_study(tmp_path / "x.zip"):
        pass


def test_an_archive_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a", bytes(archive.RATIO_COUNTS_FROM_BYTES + 1))
    with pytest.raises(UnsafeArchiveError, match="looks like an archive bomb"), open_study(tmp_path / "x.zip"):
        pass


def test_an_archive_that_unpacks_too_large_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 10)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("a", bytes(11))
    with pytest.raises(UnsafeArchiveError, match="give each study its own archive"), open_study(tmp_path / "x.zip"):
        pass


def test_an_archive_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a", bytes(100_000))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<L", 100_000), struct.pack("<L", 10)))
    with pytest.raises(UnreadableInputError, match="cannot be unpacked"), open_study(path):
        pass


def test_a_broken_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UnreadableInputError, match=r"x.zip cannot be unpacked"), open_study(tmp_path / "x.zip"):
        pass


def test_a_nifti_and_a_picture_are_studies_without_a_uid(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"x")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "slice.png")
    for name, kind in (("scan.nii.gz", "nifti"), ("slice.png", "picture")):
        with open_study(tmp_path / name) as study:
            assert (study.study_instance_uid, study.kind, study.series[0].series_instance_uid) == (None, kind, name)
            assert study.series[0].instances[0].path == tmp_path / name
